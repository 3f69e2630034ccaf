package emperor

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
	"fiefdom/internal/vault"
	"fiefdom/vassal"
)

// What a vault can hold that is no vassal is said, costs no descriptor, and is
// nobody's.
func TestNotesThatMakeNoOrphans(t *testing.T) {
	nettest.Root(t)
	config := `{"name":"blog","file":"/blog.ini","command":["/bin/true"]}`
	for name, tc := range map[string]struct{ key, note, want string }{
		"nothing":               {"vassal/blog", ``, "unexpected end"},
		"half a note":           {"vassal/blog", `{"name":"blog","config":`, "unexpected end"},
		"of another kind":       {"vassal/blog", `[]`, "cannot unmarshal"},
		"without a name":        {"vassal/blog", `{"config":` + config + `}`, "not whole"},
		"without an ini":        {"vassal/blog", `{"name":"blog"}`, "not whole"},
		"a jail's nothing":      {"jail/blog/7", ``, "unexpected end"},
		"a jail without files":  {"jail/blog/7", `{"name":"blog","inode":7}`, "no namespace"},
		"a door without socket": {"door/blog", `{"vassal":"blog","address":"/run/a"}`, "no socket"},
		"a door nowhere":        {"door/blog", `{"vassal":"blog","address":""}`, "no address"},
		"a run's nothing":       {"run/blog/a.1", `{`, "unexpected end"},
		"a run of nobody":       {"run/blog/a.1", `{"vassal":"blog"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := nettest.OpenFiles(t, os.Getpid())
			var said lines
			var files vault.Files
			if err := files.AddFD("other", 0); err != nil {
				t.Fatal(err)
			}
			o := FindOrphans([]vault.Item{{Key: tc.key, Note: []byte(tc.note), Files: &files}}, slog.New(slog.NewTextHandler(&said, nil)))
			if !o.Empty() || !reflect.DeepEqual(o.vain, []string{tc.key}) {
				t.Errorf("orphans %+v, in vain %v", o.all, o.vain)
			}
			if !strings.Contains(said.String(), tc.want) || (said.String() == "") != (tc.want == "") {
				t.Errorf("said %q, want %q", said.String(), tc.want)
			}
			if now := nettest.OpenFiles(t, os.Getpid()); now != before {
				t.Errorf("%d descriptors, were %d", now, before)
			}
		})
	}

	// A vassal whose generation does not fit is one without it.
	for name, rest := range map[string]string{
		"no jail":    `"jailed":true,"jail":7,"generation":{"pid":1}`,
		"no process": `"jailed":true,"generation":{"pid":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			o := FindOrphans([]vault.Item{{Key: "vassal/blog", Note: []byte(`{"name":"blog","config":` + config + `,` + rest + `}`), Files: &vault.Files{}}}, slog.New(slog.DiscardHandler))
			if len(o.all) != 1 || o.all[0].gen != nil || o.all[0].note.Running == nil {
				t.Errorf("%+v", o.all)
			}
		})
	}
}

// What an emperor knows of a vassal goes whole into the note and comes back.
func TestNoteGoesRound(t *testing.T) {
	e := testEmperor(t)
	at := time.Now().Round(0).UTC()
	c := goodVassal(t, "blog", "env = A=1\nhook-as-root = mkdir:/x")
	c.Door = "/run/blog.socket"
	v := &member{
		name: "blog", file: iniFile{"blog", "/a/blog.ini", "s", owner{7, 8}, fileID{1, 2, 3, 4}, true, "why", false, "/a/door", fileID{5, 6, 7, 8}},
		state: Stopped, since: at, then: launch, dethroned: true, config: c, running: goodVassal(t, "blog", "env = A=2"), err: "an error", warnings: []string{"w"},
		backoff: newBackoff(e.Config), dates: dates{at, at, at, at, at, time.Second}, launches: 5, starts: 4, renewals: 3, readings: 2,
		options: []byte("options"), uid: 61200, clock: cronClock{at, at}, shortage: shortage{killed: 2},
	}
	v.backoff.deaths, v.errands.pid = 3, 77
	b, err := json.Marshal(v.note())
	if err != nil {
		t.Fatal(err)
	}
	o := FindOrphans([]vault.Item{{Key: "vassal/blog", Note: b, Files: &vault.Files{}}}, slog.New(slog.DiscardHandler))
	if len(o.all) != 1 {
		t.Fatalf("%+v", o)
	}
	got := e.memberOf(&o.all[0].note)
	want := *v
	want.adopted, want.then = true, ""
	if !reflect.DeepEqual(got, &want) {
		t.Errorf("it is\n%+v\nwas\n%+v", got, &want)
	}
	if event := o.all[0].note.event(); event != restart {
		t.Errorf("event %s", event)
	}
}

// A vassal that was being started when its emperor was killed is started by the
// next one, however many of them do not live to read its ini; unless an operator
// stops it meanwhile.
func TestStartsThatEmperorsDoNotLiveToSee(t *testing.T) {
	e := testEmperor(t)
	e.Instance = &Instance{Runtime: t.TempDir()}
	n := note{Name: "blog", State: Starting, Config: goodVassal(t, "blog", ""), Error: "exit code 1"}
	next := func() *member {
		v := e.memberOf(&n)
		e.vassals["blog"] = v
		e.restore(v, &orphan{note: n})
		n = v.note()
		return v
	}
	for range 3 {
		v := next()
		if v.state != Stopped || n.State != Starting {
			t.Fatalf("it is %s, and the next emperor finds it %s", v.state, n.State)
		}
		if e.unchanged(v) {
			t.Fatal("it is not started")
		}
	}
	v := next()
	e.happen(v, bad)
	if n := v.note(); n.State != Invalid {
		t.Errorf("with a bad ini the next emperor finds it %s", n.State)
	}
	for _, s := range []State{Stopped, Invalid} {
		v := next()
		v.state = s
		e.happen(v, stop)
		if n := v.note(); n.State != Stopped || !e.unchanged(v) {
			t.Errorf("%s, and stopped: the next emperor finds it %s", s, n.State)
		}
	}
}

// A door that is open stays so where the emperor's networks are others by now, and
// the vassal's ini has nothing to go by: as under the emperor before, until a good
// ini or an operator says otherwise.
func TestDoorsOfVassalsThatFitNoMore(t *testing.T) {
	e := testEmperor(t)
	e.Instance = &Instance{Runtime: t.TempDir()}
	n := note{Name: "blog", State: Stopped, Config: goodVassal(t, "blog", "tuntap-device = eth0\ntuntap-device-address = 10.9.0.7")}
	if _, bad := e.resolve(n.Config); bad == nil {
		t.Fatal("it fits")
	}
	d := newDoor(doorSpec{address: address{path: "/run/blog.socket"}, as: &owner{7, 7}}, nil)
	v := e.memberOf(&n)
	e.vassals["blog"] = v
	e.restore(v, &orphan{note: n, door: d})
	e.jobs.Wait()
	if v.door != d || d.closed {
		t.Errorf("its door is %+v, was %+v", v.door, d)
	}
	e.rest(v)
	e.jobs.Wait()
	if !d.closed || v.door == d {
		t.Error("it is stopped, and its door is open")
	}
}

// The events of an adopted vassal are its owner's, as before; what is left of one
// whose name is another's by now is root's alone.
func TestEventsOfAdoptedVassals(t *testing.T) {
	e := testEmperor(t)
	e.Journal = &Journal{owners: map[string]uint32{}, counts: map[string]uint64{}}
	for i, dethroned := range []bool{false, true} {
		e.memberOf(&note{Name: fmt.Sprint(dethroned), File: fileNote{Owner: [2]uint32{7, 8}}, Dethroned: dethroned})
		e.Journal.add(Event{Vassal: fmt.Sprint(dethroned)})
		if got, want := e.Journal.kept[i].Owner, map[bool]uint32{false: 7, true: 0}[dethroned]; got != want {
			t.Errorf("dethroned %v: the event is that of uid %d, want %d", dethroned, got, want)
		}
	}
}

// With orphans, what is not theirs is ended and removed, and theirs stays.
func TestEndLeftoversSparesOrphans(t *testing.T) {
	nettest.Root(t)
	nettest.Unified(t)
	dir := t.TempDir()
	i, err := Lock(&Config{Instance: "spare", Runtime: filepath.Join(dir, "run"), State: filepath.Join(dir, "state")})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Leave()
	c, err := i.MakeCgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Remove(t.Context())
	groups := map[string]bool{"blog.1": true, "blog.2": false, "blog.1/+a.1": true, "blog.1/+a.2": false, "shop.1": false, "vault": true, "router": true, "hook.1": false}
	for _, name := range []string{"blog.1", "blog.2", "blog.1/+a.1", "blog.1/+a.2", "shop.1", "vault", "router", "hook.1"} {
		if err := os.Mkdir(filepath.Join(string(c), name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]bool{
		"api.sock": false, "vault": true, "vault.sock": true, "resolv-fief0": true, "out/blog": true, "out/shop": false, "out/blog%2fa": true, "out/blog%2fb": false,
		"apps/blog": true, "apps/shop": false, "apps/blog%2f%2ba.1": true, "apps/blog%2f%2ba.2": false, "cgroup": true, "router": true,
	}
	for name := range files {
		path := i.Path(name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if name != "cgroup" {
			write(t, path, "")
		}
	}
	group := func(name string) *vassal.Generation {
		return restored(t, vassal.Cgroup(filepath.Join(string(c), name)))
	}
	o := &Orphans{Router: true, log: slog.New(slog.DiscardHandler), all: []*orphan{{
		note: note{Name: "blog", Config: &vassal.Config{}, Processes: []processNote{{Name: "a"}, {Name: "b"}}}, gen: group("blog.1"),
		runs: []*orphanRun{{note: runNote{ID: "+a.1", Process: "a"}, gen: group("blog.1/+a.1")}},
	}}}
	if err := i.EndLeftovers(t.Context(), slog.New(slog.DiscardHandler), o); err != nil {
		t.Fatal(err)
	}
	for name, stays := range groups {
		if _, err := os.Stat(filepath.Join(string(c), name)); (err == nil) != stays {
			t.Errorf("cgroup %s: %v", name, err)
		}
	}
	for name, stays := range files {
		if _, err := os.Stat(i.Path(name)); (err == nil) != stays {
			t.Errorf("file %s: %v", name, err)
		}
	}
	if again, err := i.MakeCgroup(); err != nil || again != c {
		t.Errorf("the cgroup is %s, was %s: %v", again, c, err)
	}

	// A record of a vault whose pid is another's by now ends nobody.
	write(t, i.Path(vaultRecord), "1 0")
	if err := i.EndLeftovers(t.Context(), slog.New(slog.DiscardHandler), nil); err != nil {
		t.Fatal(err)
	}
}

// restored is a generation of which nothing but its cgroup matters.
func restored(t *testing.T, c vassal.Cgroup) *vassal.Generation {
	t.Helper()
	j, err := vassal.NewJail("blog", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	var files vault.Files
	if err := files.AddFD("process", 0); err != nil {
		t.Fatal(err)
	}
	g, err := j.Restore(vassal.GenerationRecord{Cgroup: c}, &files, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestOrphansOption(t *testing.T) {
	for value, want := range map[string]string{"adopt": AdoptOrphans, "kill": KillOrphans, "keep": "", "": ""} {
		c, errs := Parse(&ini.File{Name: "emperor.ini", Pairs: []ini.Pair{{Key: "emperor-orphans", Value: value}}})
		if errs.Failed() != (want == "") || want != "" && c.Orphans != want {
			t.Errorf("%q: %q, %v", value, c.Orphans, errs)
		}
	}
	if c, _ := Parse(&ini.File{Name: "emperor.ini"}); c.Orphans != AdoptOrphans {
		t.Errorf("without it: %q", c.Orphans)
	}
}
