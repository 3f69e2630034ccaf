package exposure

import (
	"slices"
	"strings"
	"testing"
)

// safe is an app of which all is well.
func safe() *Facts {
	return &Facts{
		Vassal: "blog", File: "/etc/fiefdom/vassals/blog.ini", Level: "strict", Running: true,
		Ini:     Ini{Leases: true, Secrets: []string{"env DB_PASSWORD"}},
		Rights:  Rights{UID: 61200, NoNewPrivs: true, Filtered: true, Strict: true},
		Files:   Files{Landlock: 6, Knows: 6},
		Network: Network{Counted: true, Ruled: true},
		Limits:  Limits{Memory: true, PIDs: true, CPU: true},
	}
}

// flips turn one row each, of an app of which all is well.
var flips = []struct {
	row    string
	change func(*Facts)
	advice string // that it asks for
}{
	{"user", func(f *Facts) { f.Rights.Root = true; f.Ini.UID = "uid = root" }, "without uid; gid"},
	{"user", func(f *Facts) { f.Rights.Root = true; f.Ini = Ini{}; f.Level = "compat" }, "confine = default"},
	{"user", func(f *Facts) { f.Rights.Root = true; f.Ini = Ini{Given: true} }, "uid = NAME"},
	{"user", func(f *Facts) { f.Rights.Root = true; f.Ini = Ini{Tyrant: true} }, "give its ini to an owner"},
	{"capabilities", func(f *Facts) { f.Rights.Capabilities = []string{"net_admin"}; f.Ini.Cap = true }, "without cap"},
	{"new-rights", func(f *Facts) { f.Rights.NoNewPrivs = false; f.Level = "none" }, "confine = default"},
	{"setuid", func(f *Facts) { f.Files.Setuid = []string{"/mnt"}; f.Ini.Hooks = nil }, "what they mount"},
	{"own-user", func(f *Facts) { f.Rights.Sharing = 1; f.Ini.UID = "uid = www-data" }, "without uid"},
	{"own-user", func(f *Facts) { f.Rights.Sharing = 1; f.Ini = Ini{}; f.Level = "compat" }, "confine = default"},
	{"own-user", func(f *Facts) { f.Rights.Sharing = 1; f.Ini = Ini{Given: true} }, "uid = NAME"},
	{"own-user", func(f *Facts) { f.Rights.Sharing = 1; f.Ini.Tyrant = true }, "vassals of one owner"},
	{"calls", func(f *Facts) { f.Rights.Filtered = false; f.Level = "compat" }, "confine = default"},
	{"strict-calls", func(f *Facts) { f.Rights.Strict = false; f.Level = "default" }, "confine = strict"},
	{"system", func(f *Facts) { f.Files.Open = []string{"/"}; f.Level = "compat" }, "confine = default"},
	{"system", func(f *Facts) {
		f.Files.Open = []string{"/mnt"}
		f.Level = "compat"
		f.Ini.Against = []string{"setns"}
	}, "without setns; confine = default"},
	{"landlock", func(f *Facts) { f.Files.Landlock = 0; f.Level = "compat" }, "confine = default"},
	{"landlock", func(f *Facts) { f.Files.Landlock, f.Files.Knows = 0, 0 }, "Linux 5.13"},
	{"executable", func(f *Facts) { f.Files.Executable = []string{"/tmp"}; f.Level = "default" }, "confine = strict"},
	{"given", func(f *Facts) { f.Files.Given = []string{"bind = /run/docker.sock"} }, "without bind = /run/docker.sock"},
	{"own-code", func(f *Facts) {
		f.Files.Code = []Code{{Path: "/srv/blog/app.py", Writable: "writable = /srv/blog"}}
		f.Files.Changes = []string{"/srv/blog/app.py"}
	}, "without writable = /srv/blog"},
	{"own-code", func(f *Facts) { f.Files.Changes = []string{"/srv/blog/app.py"}; f.Level = "compat" }, "confine = default"},
	{"own-code", func(f *Facts) { f.Files.Changes = []string{"/srv/blog/app.py"} }, "give it to root"},
	{"tmp", func(f *Facts) { f.Sight.Tmp = true; f.Level = "compat" }, "confine = default"},
	{"run", func(f *Facts) { f.Sight.Run = true; f.Level = "compat" }, "confine = default"},
	{"devices", func(f *Facts) { f.Sight.Dev = true; f.Level = "compat" }, "confine = default"},
	{"kernel-files", func(f *Facts) { f.Sight.Kernel = true; f.Level = "compat" }, "confine = default"},
	{"processes", func(f *Facts) { f.Sight.Shared = []string{"pid"}; f.Level = "compat" }, "confine = default"},
	{"mounts", func(f *Facts) { f.Sight.Shared = []string{"mnt"}; f.Level = "compat" }, "confine = default"},
	{"ipc", func(f *Facts) { f.Sight.Shared = []string{"ipc"}; f.Level = "compat" }, "confine = default"},
	{"hostname", func(f *Facts) { f.Sight.Shared = []string{"uts"}; f.Level = "compat" }, "confine = default"},
	{"cgroups", func(f *Facts) { f.Sight.Shared = []string{"cgroup"}; f.Level = "compat" }, "confine = default"},
	{"isolate", func(f *Facts) { f.Network.Neighbors, f.Network.Kinds = []string{"fief0"}, []string{"router"} }, "in the emperor's ini: tuntap-router-isolate = on"},
	{"isolate", func(f *Facts) { f.Network.Neighbors, f.Network.Kinds = []string{"br0"}, []string{"bridge"} }, "in the emperor's ini: bridge-isolate = on"},
	{"isolate", func(f *Facts) { f.Network.Neighbors, f.Network.Kinds = []string{"/run/r.sock"}, []string{"foreign"} }, "whoever runs the router"},
	{"isolate", func(f *Facts) { f.Network.Neighbors, f.Network.Kinds = []string{"fief0"}, []string{"rule"} }, "a rule of its network's chain out allows all"},
	{"outside", func(f *Facts) { f.Network.Anywhere = []string{"fief0"} }, "tuntap-device-rule = out any any deny"},
	{"outside", func(f *Facts) { f.Network.Anywhere = []string{"br0"}; f.Network.Ruled = false }, "nobody but a router"},
	{"ports", func(f *Facts) { f.Network.Counted = false; f.Network.Listens = []uint16{80, 8000} }, "listen-ports = 80,8000"},
	{"ports", func(f *Facts) { f.Network.Counted = false }, "listen-ports = PORT"},
	{"ports", func(f *Facts) { f.Network.Counted = false; f.Files.Knows = 3 }, "Linux 6.7"},
	{"published", func(f *Facts) {
		f.Network.Low = []Port{{"publish = 80:8000/tcp", "publish = 127.0.0.1:80:8000/tcp"}}
	}, "without publish = 80:8000/tcp; publish = 127.0.0.1:80:8000/tcp"},
	{"memory", func(f *Facts) { f.Limits.Memory = false }, "limit-memory = 512M"},
	{"processes-limit", func(f *Facts) { f.Limits.PIDs = false }, "limit-pids = 256"},
	{"memory", func(f *Facts) { f.Limits.Memory = false; f.Limits.UsedMemory = 700 << 20 }, "limit-memory = 2048M"},
	{"processes-limit", func(f *Facts) { f.Limits.PIDs = false; f.Limits.UsedPIDs = 200 }, "limit-pids = 512"},
	{"cpu", func(f *Facts) { f.Limits.CPU = false }, "limit-cpu = "},
	{"hooks", func(f *Facts) { f.Ini.Hooks = []string{"exec-as-root (blog.ini:4)"} }, "without exec-as-root (blog.ini:4)"},
	{"secrets", func(f *Facts) { f.Ini.Readable = true; f.File = "/srv/o'neil; reboot/x.ini" }, `chmod o-r '/srv/o'\''neil; reboot/x.ini'`},
	{"secrets", func(f *Facts) { f.Ini.Readable = true }, "chmod o-r /etc/fiefdom/vassals/blog.ini"},
}

func bad(r *Report) (names []string) {
	for _, row := range r.Rows {
		if !row.OK {
			names = append(names, row.Name)
		}
	}
	return names
}

func TestOneFactTurnsOneRow(t *testing.T) {
	if r := Judge(safe()); r.Score != 0 || r.Word != "safe" || bad(&r) != nil {
		t.Fatalf("all is well, and the score is %.1f %s with %q", r.Score, r.Word, bad(&r))
	}
	turned := map[string]bool{}
	for _, tt := range flips {
		t.Run(tt.row, func(t *testing.T) {
			f := safe()
			tt.change(f)
			r := Judge(f)
			if got := bad(&r); !slices.Equal(got, []string{tt.row}) {
				t.Fatalf("not well are %q", got)
			}
			worst := r.Worst()[0]
			if advice := worst.Advice.String(); !strings.Contains(advice, tt.advice) || advice == "" {
				t.Errorf("advice %q, want %q", advice, tt.advice)
			}
			if r.Score <= 0 || worst.Weight <= 0 || worst.Text == "" {
				t.Errorf("score %.1f, row %+v", r.Score, worst)
			}
		})
		turned[tt.row] = true
	}
	for _, row := range rows {
		if !turned[row.name] && row.name != "network" { // of which two others follow: below
			t.Errorf("nothing turns %s", row.name)
		}
		if row.why == "" || row.weight < 1 || row.weight > 10 {
			t.Errorf("row %s: weight %d, %q", row.name, row.weight, row.why)
		}
	}
}

// On the host's network nothing of a router's holds.
func TestTheHostsNetwork(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Facts)
		advice string
	}{
		{"with a network to be had", func(f *Facts) { f.Network.Choices = []string{"fief0"} }, "network = fief0"},
		{"without one", func(*Facts) {}, "network = none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := safe()
			f.Sight.Shared = []string{"net"}
			tt.change(f)
			r := Judge(f)
			if got := bad(&r); !slices.Equal(got, []string{"network", "isolate", "outside"}) {
				t.Fatalf("not well are %q", got)
			}
			for _, row := range r.Worst() {
				if advice := row.Advice.String(); !strings.HasPrefix(advice, tt.advice) {
					t.Errorf("%s: advice %q, want %q", row.Name, advice, tt.advice)
				}
			}
		})
	}
}

func TestScoreOfNothingTakenAway(t *testing.T) {
	f := Facts{
		Level: "none", Rights: Rights{Root: true, Sharing: 1, Capabilities: []string{"all"}},
		Ini:   Ini{Hooks: []string{"exec-as-root (a.ini:1)"}, Secrets: []string{"env TOKEN"}, Readable: true},
		Files: Files{Open: []string{"/"}, Setuid: []string{"/"}, Executable: []string{"/"}, Given: []string{"bind = /run/docker.sock"}, Changes: []string{"/a"}},
		Sight: Sight{Shared: []string{"pid", "mnt", "ipc", "uts", "cgroup", "net"}, Tmp: true, Run: true, Dev: true, Kernel: true},
		Network: Network{
			Neighbors: []string{"fief0"}, Kinds: []string{"router"}, Anywhere: []string{"fief0"},
			Low: []Port{{"publish = 80", "publish = 127.0.0.1:80"}},
		},
	}
	r := Judge(&f)
	if r.Score != worst || r.Word != "dangerous" {
		t.Errorf("score %.1f %s; well are %d rows less than all", r.Score, r.Word, len(bad(&r))-len(r.Rows))
	}
}

// Who listens on ports without naming them is told to, before they are refused.
func TestStrictKeepsPorts(t *testing.T) {
	f := safe()
	f.Level, f.Rights.Strict, f.Network.Counted, f.Network.Listens = "default", false, false, []uint16{80, 8000}
	r := Judge(f)
	for _, row := range r.Worst() {
		if row.Name == "strict-calls" && !slices.Equal(row.Advice.Write, []string{"confine = strict", "listen-ports = 80,8000"}) {
			t.Errorf("advice %q", row.Advice.Write)
		}
	}
}

func TestWords(t *testing.T) {
	for score, want := range map[float64]string{0: "safe", 0.9: "safe", 1: "good", 2.4: "good", 2.5: "medium", 5: "exposed", 7.4: "exposed", 7.5: "dangerous", 10: "dangerous"} {
		if got := word(score); got != want {
			t.Errorf("%.1f is %s, want %s", score, got, want)
		}
	}
}
