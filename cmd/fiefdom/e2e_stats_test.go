package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

// document reads what a stats server tells on one connection.
func document(w *nettest.World, network, address string) (map[string]any, error) {
	var c net.Conn
	var err error
	if network == "unix" {
		c, err = net.Dial(network, w.Path(address))
	} else {
		err = netns.Do(w.Host.Handle, func() error {
			c, err = net.Dial(network, address)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(c)
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%w: %s", err, text)
	}
	return doc, nil
}

// keys are a document's, each with the kind of its value; those of the first
// element stand for a list's.
func keys(prefix string, value any) []string {
	switch v := value.(type) {
	case map[string]any:
		var all []string
		for _, k := range slices.Sorted(maps.Keys(v)) {
			all = append(all, keys(prefix+"."+k, v[k])...)
		}
		return all
	case []any:
		if len(v) == 0 {
			return []string{prefix + " is an empty list"}
		}
		return keys(prefix+"[]", v[0])
	}
	return []string{fmt.Sprintf("%s %T", prefix, value)}
}

// Two vassals that two emperors have: one that speaks, one that dies at once.
var statsVassals = map[string]string{
	"snake": "[uwsgi]\nemperor-protocol = true\nreload-mercy = 1\nunprivileged-binary-patch-arg = python3 /run/t/snake.py\n",
	"sick":  "[uwsgi]\nunprivileged-binary-patch-arg = false\n",
}

// entry waits until the document has an entry of a list that holds.
func entry(t *testing.T, read func() (map[string]any, error), list, id, what string, holds func(map[string]any) bool) (doc, found map[string]any) {
	t.Helper()
	nettest.Eventually(t, patience, fmt.Sprintf("%s of %s: %s", list, id, what), func() bool {
		var err error
		if doc, err = read(); err != nil {
			return false
		}
		entries, _ := doc[list].([]any)
		for _, e := range entries {
			if found = e.(map[string]any); found["id"] == id && holds(found) {
				return true
			}
		}
		return false
	})
	return doc, found
}

func TestEmperorStats(t *testing.T) {
	t.Parallel()
	theirs := realStats(t, nettest.NewWorld(t))
	w := nettest.NewWorld(t)
	r := layRealm(t, w, "emperor", "[uwsgi]\nemperor = /run/t/vassals\nemperor-stats = /run/t/stats.sock\n"+
		"emperor-pidfile = /run/t/emperor.pid\nemperor-procname = our emperor\nemperor-throttle = 3600000\nemperor-max-throttle = 3600000\n")
	r.write("/run/t/snake.py", speaker)
	for name, text := range statsVassals {
		r.drop(name, text)
	}
	began := time.Now().Unix()
	r.start()
	read := func() (map[string]any, error) { return document(w, "unix", "/run/t/stats.sock") }
	_, snake := entry(t, read, "vassals", "snake.ini", "is loyal", func(e map[string]any) bool { return e["loyal"] == 1.0 && e["last_heartbeat"] != 0.0 })
	doc, sick := entry(t, read, "blacklist", "sick.ini", "is there", func(e map[string]any) bool { return e["attempt"] == 2.0 })
	if ours := keys("", doc); !slices.Equal(ours, theirs) {
		t.Errorf("our keys:\n%s\nuWSGI's:\n%s", strings.Join(ours, "\n"), strings.Join(theirs, "\n"))
	}
	pid := strings.TrimSpace(r.read("/run/t/emperor.pid"))
	cmdline := strings.TrimRight(r.read("/proc/"+pid+"/cmdline"), "\x00")
	if comm := r.read("/proc/" + pid + "/comm"); cmdline != "our emperor" || comm != "our emperor\n" || fmt.Sprint(doc["pid"]) != pid {
		t.Errorf("pid %v: cmdline %q, comm %q; the stats say %v", pid, cmdline, comm, doc["pid"])
	}
	status := r.ps("snake")
	for key, want := range map[string]any{
		"pid": float64(status.PID), "ready": 1.0, "accepting": 1.0, "cursed": 0.0, "on_demand": "", "monitor": "/run/t/vassals", "respawns": 0.0, "uid": 0.0, "gid": 0.0,
	} {
		if snake[key] != want {
			t.Errorf("%s is %v, want %v", key, snake[key], want)
		}
	}
	for key, value := range snake {
		date := strings.HasPrefix(key, "last_") || strings.HasSuffix(key, "_run") || key == "born"
		if n, ok := value.(float64); date && (!ok || int64(n) < began-1 || int64(n) > time.Now().Unix()) {
			t.Errorf("%s is %v; the emperor began at %d", key, value, began)
		}
	}
	if level, _ := sick["throttle_level"].(float64); level < 1800000 || level > 3600000 {
		t.Errorf("throttle_level is %v, want the back-off in ms", sick["throttle_level"])
	}
	r.Run(t, "touch", iniPath("snake"))
	entry(t, read, "vassals", "snake.ini", "has reloaded", func(e map[string]any) bool { return e["respawns"] == 1.0 })

	// Who connects and does not read keeps nobody waiting, at the emperor's end either.
	var idle []net.Conn
	for range 8 {
		c, err := net.Dial("unix", w.Path("/run/t/stats.sock"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	if _, err := read(); err != nil || len(idle) != 8 {
		t.Errorf("beside idle clients: %v", err)
	}
	r.stop(syscall.SIGTERM)
	for _, left := range []string{"/run/t/emperor.pid", "/run/t/stats.sock"} {
		if _, err := os.Lstat(r.Path(left)); err == nil {
			t.Errorf("%s is left", left)
		}
	}
}

// realStats are the keys that a real uWSGI's emperor tells.
func realStats(t *testing.T, w *nettest.World) []string {
	t.Helper()
	if err := os.MkdirAll(w.Path("/run/t/theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range statsVassals {
		text = strings.ReplaceAll(text, "python3 /run/t/snake.py", "sleep 1000")
		if err := os.WriteFile(w.Path("/run/t/theirs/"+name+".ini"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("uwsgi-core", "--master", "--emperor", "/run/t/theirs", "--emperor-stats-server", "/run/t/theirs.sock", "--emperor-freq", "1")
	w.Start(t, cmd)
	read := func() (map[string]any, error) { return document(w, "unix", "/run/t/theirs.sock") }
	entry(t, read, "vassals", "snake.ini", "is there", func(map[string]any) bool { return true })
	doc, _ := entry(t, read, "blacklist", "sick.ini", "is there", func(map[string]any) bool { return true })
	return keys("", doc)
}

// The stats by TCP, at an address that a hook gives to the host, with the word
// of uWSGI's that is longer.
func TestEmperorStatsByTCP(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "[uwsgi]\nemperor = /run/t/vassals\nemperor-stats-server = 127.0.0.2:1717\nexec-as-root = ip link set lo up\n")
	r.start()
	doc, err := document(r.World, "tcp", "127.0.0.2:1717")
	if err != nil || len(doc["vassals"].([]any)) != 0 || len(doc["blacklist"].([]any)) != 0 {
		t.Errorf("%v, %v", doc, err)
	}
	r.drop("late", "[uwsgi]\ncommand = sleep 1000\nreload-mercy = 0\n")
	s := r.awaitState("late", emperor.Running)
	read := func() (map[string]any, error) { return document(r.World, "tcp", "127.0.0.2:1717") }
	entry(t, read, "vassals", "late.ini", "runs", func(e map[string]any) bool { return e["pid"] == float64(s.PID) && e["first_run"] != 0.0 })
	r.stop(syscall.SIGTERM)
}
