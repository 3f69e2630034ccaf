package vassal

import (
	"encoding/json"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"fiefdom/internal/ini"
)

func TestAttached(t *testing.T) {
	root := &Identity{Name: "0", Home: "/root", Groups: []int{0}}
	group := &Identity{Name: "0"}
	for _, c := range []struct {
		name, text string
		want       Attached
	}{
		{"plain", "attach-daemon = /usr/bin/worker.sh --all; b", Attached{Name: "worker.sh", Command: "/usr/bin/worker.sh --all; b"}},
		{"exec", "attach-daemon = exec memcached -p 11311", Attached{Name: "memcached", Command: "exec memcached -p 11311"}},
		{"no name", "attach-daemon = $(x)", Attached{Name: "shell", Command: "$(x)"}},
		{"hidden name", "attach-daemon = /opt/..a/b", Attached{Name: "b", Command: "/opt/..a/b"}},
		{"control", "attach-control-daemon = a b", Attached{Name: "a", Command: "a b", Control: true}},
		{"smart", "smart-attach-daemon = /tmp/m.pid memcached -d -P /tmp/m.pid", Attached{
			Name: "memcached", Command: "memcached -d -P /tmp/m.pid", Pidfile: "/tmp/m.pid", Freq: 10 * time.Second,
		}},
		{"smart, freq", "smart-attach-daemon = m.pid,3 a", Attached{Name: "a", Command: "a", Pidfile: "m.pid", Freq: 3 * time.Second}},
		{"smart 2", "smart-attach-daemon2 = m.pid a", Attached{Name: "a", Command: "a", Pidfile: "m.pid", Freq: 10 * time.Second, Daemonize: true}},
		{"all keys", `attach-daemon2 = cmd=a b\,c=d,control=1,touch=/a;/b,stopsignal=10,reload_signal=HUP,chdir=/srv,ns_pid=true,max_throttle=5,stdin=1,notifypid=1`, Attached{
			Name: "a", Command: "a b,c=d", Control: true, Touch: []string{"/a", "/b"}, StopSignal: 10, ReloadSignal: 1,
			Chdir: "/srv", Stdin: true, NewPID: true, MaxThrottle: 5 * time.Second, Freq: 10 * time.Second,
		}},
		{"ids", "attach-daemon2 = exec=a,uid=0,gid=0", Attached{Name: "a", Command: "a", UID: root, GID: group, Freq: 10 * time.Second}},
		{"pidfile", "attach-daemon2 = command=a,pidfile=/p,daemon=true,freq=2", Attached{
			Name: "a", Command: "a", Pidfile: "/p", Daemonize: true, Freq: 2 * time.Second,
		}},
		{"switched off", "attach-daemon2 = command=a,control=0,daemonize=false", Attached{Name: "a", Command: "a", Freq: 10 * time.Second}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, more := range []string{"", "\ncommand = app", "\nmaster = true\nplugins = psgi"} {
				cfg := good(t, c.text+more)
				if len(cfg.Attached) != 1 || len(cfg.App) > 0 {
					t.Fatalf("%+v", cfg)
				}
				got := cfg.Attached[0]
				for _, id := range []*Identity{got.UID, got.GID} {
					if id != nil {
						id.Pos = ini.Pos{}
					}
				}
				got.Pos = ini.Pos{}
				if !reflect.DeepEqual(got, c.want) {
					t.Errorf("got  %+v\nwant %+v", got, c.want)
				}
			}
		})
	}
}

// Where the vassal is a uwsgi they are its own.
func TestAttachedOfUWSGI(t *testing.T) {
	c := good(t, "psgi = app.pl\nattach-daemon = a\ncron = bad\nattach-daemon2 = x=y\nlegion-cron = whatever")
	want := "--set attach-daemon=a --set cron=bad --set attach-daemon2=x=y --set legion-cron=whatever"
	if got := strings.Join(c.Args(), " "); len(c.Attached) > 0 || !strings.HasSuffix(got, want) {
		t.Errorf("%q, %+v", got, c.Attached)
	}
}

func TestAttachedNames(t *testing.T) {
	c := good(t, "attach-daemon = /a/w\nattach-daemon = /b/w\ncron = -1 -1 -1 -1 -1 w")
	var got []string
	for _, d := range c.Attached {
		got = append(got, d.Name)
	}
	if want := []string{"w", "w-2", "w-3"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAttachedBad(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "attach-daemon = ", "has no command"},
		{"smart, no command", "smart-attach-daemon = /p", "want PIDFILE[,SECONDS] COMMAND"},
		{"smart, freq", "smart-attach-daemon = /p,x a", "is not a time"},
		{"key", "attach-daemon2 = cmd=a,colour=red", "colour: no such key; want cmd"},
		{"comma", "attach-daemon2 = cmd=echo a,b", `"b" is no KEY=VALUE (write a comma of a value as \,)`},
		{"no command", "attach-daemon2 = control=1", "write cmd=COMMAND"},
		{"signal", "attach-daemon2 = cmd=a,stopsignal=HALT", `stopsignal: unknown signal "HALT"`},
		{"uid", "attach-daemon2 = cmd=a,uid=no-such-user", "uid: no user"},
		{"chdir", "attach-daemon2 = cmd=a,chdir=here", "want an absolute path"},
		{"throttle", "attach-daemon2 = cmd=a,max_throttle=7200", "a time of more than 1h"},
		{"pidfile of another world", "attach-daemon2 = cmd=a,ns_pid=1,pidfile=/p", "leave ns_pid or the pidfile out"},
		{"legion", "command = a\nlegion-attach-daemon = l b", "write attach-daemon"},
		{"legion's cron", "command = a\nunique-cron-legion = l -1 -1 -1 -1 -1 b", "write unique-cron"},
		{"protocol", "attach-daemon = a\ncommand = b\nemperor-protocol = true", "leave it or the attached processes out"},
		{"cron, words", "cron = -1 -1 -1 -1 a", "want MINUTE HOUR"},
		{"cron, no command", "cron = -1 -1 -1 -1 -1", "want MINUTE HOUR"},
		{"cron, blank command", "cron = -1 -1 -1 -1 -1  ", "want MINUTE HOUR"},
		{"cron, minute", "cron = 60 -1 -1 -1 -1 a", "minute 60: want 0 to 59"},
		{"cron, no number", "cron = * * * * * a", `minute: "*" is not a whole number`},
		{"cron, day 0", "cron = 0 0 0 1 1 a", "day 0: want 1 to 31"},
		{"cron, month 13", "cron = 0 0 1 13 1 a", "month 13: want 1 to 12"},
		{"cron, week 8", "cron = 0 0 1 1 8 a", "week 8: want 0 to 7"},
		{"cron, every 100", "cron = -100 0 1 1 1 a", "-N for every N up to 60"},
		{"cron2, key", "cron2 = minutes=3 a", `"minutes": no such key`},
		{"cron2, legion", "cron2 = legion=l a", "leave the key out"},
		{"cron2, no command", "cron2 = minute=3", "has no command"},
		{"cron2, harakiri", "cron2 = harakiri=x a", "harakiri: "},
		{"too many", strings.Repeat("attach-daemon = a\n", 65), "at most 64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, errs := parse(t, c.text)
			if !errs.Failed() || !strings.Contains(errs.Error(), c.want) {
				t.Errorf("want %q in: %v", c.want, errs)
			}
			for _, err := range errs {
				if strings.Contains(err.Message, c.want) && err.Pos.Line == 0 && c.name != "protocol" {
					t.Errorf("without its line: %v", err)
				}
			}
		})
	}
}

// What the emperor takes from an expander may be anything.
func TestAttachedOfAnybody(t *testing.T) {
	for name, spoil := range map[string]func(*Attached){
		"name":        func(d *Attached) { d.Name = "../../x" },
		"hidden name": func(d *Attached) { d.Name = ".." },
		"no name":     func(d *Attached) { d.Name = "" },
		"command":     func(d *Attached) { d.Command = "a\x00b" },
		"signal":      func(d *Attached) { d.StopSignal = -9 },
		"freq":        func(d *Attached) { d.Freq = -1 },
		"uid":         func(d *Attached) { d.UID = &Identity{ID: -1} },
		"touch":       func(d *Attached) { d.Touch = make([]string, 17) },
		"pidfile":     func(d *Attached) { d.Daemonize = true },
		"cron":        func(d *Attached) { d.Cron = &Cron{Minute: 99} },
		"cron's time": func(d *Attached) { d.Cron = &Cron{Day: 1, Month: 1, Timeout: -5} },
		"both":        func(d *Attached) { d.Cron, d.Control = &Cron{Day: 1, Month: 1}, true },
	} {
		t.Run(name, func(t *testing.T) {
			c := good(t, "attach-daemon = a")
			spoil(&c.Attached[0])
			if !c.Validate().Failed() {
				t.Errorf("%+v was taken", c.Attached[0])
			}
		})
	}
	c := good(t, "attach-daemon = a\nattach-daemon = b")
	c.Attached[1].Name = "a"
	if !c.Validate().Failed() {
		t.Error("two of one name were taken")
	}
}

func TestAttachedSignal(t *testing.T) {
	d := Attached{}
	if d.Signal(true) != syscall.SIGTERM || d.Signal(false) != syscall.SIGTERM {
		t.Error("by default it is TERM")
	}
	d = Attached{StopSignal: 2, ReloadSignal: 1}
	if d.Signal(true) != syscall.SIGHUP || d.Signal(false) != syscall.SIGINT {
		t.Errorf("%v, %v", d.Signal(true), d.Signal(false))
	}
}

func TestCronOptions(t *testing.T) {
	every := Cron{Minute: -1, Hour: -1, Day: -1, Month: -1, Week: -1}
	with := func(change func(*Cron)) Cron { c := every; change(&c); return c }
	for _, c := range []struct {
		name, text, command string
		want                Cron
	}{
		{"cron", "cron = 59 2 -1 -1 -1 /usr/bin/backup --all", "/usr/bin/backup --all", with(func(c *Cron) { c.Minute, c.Hour = 59, 2 })},
		{"blanks", "cron =  -1\t-1  -1 -1 -1   a  b", "a  b", every},
		{"unique", "unique-cron = -1 -1 -1 -1 -1 a", "a", with(func(c *Cron) { c.Unique = true })},
		{"cron2", "cron2 = minute=39,hour=23,unique=1 a b", "a b", with(func(c *Cron) { c.Minute, c.Hour, c.Unique = 39, 23, true })},
		{"cron2, bare", "cron2 = a", "a", every},
		{"cron2, = later", "cron2 = env A=1 b", "env A=1 b", every},
		{"harakiri", "cron2 = harakiri=30 a", "a", with(func(c *Cron) { c.Timeout = 30 * time.Second })},
		{"default harakiri", "cron-harakiri = 5\ncron = -1 -1 -1 -1 -1 a", "a", with(func(c *Cron) { c.Timeout = 5 * time.Second })},
		{"no harakiri", "cron2 = harakiri=0 a\ncron-harakiri = 5", "a", every},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := good(t, c.text)
			b, err := json.Marshal(cfg)
			if err != nil {
				t.Fatal(err)
			}
			var back Config
			if err := json.Unmarshal(b, &back); err != nil {
				t.Fatal(err)
			}
			if len(back.Attached) != 1 || back.Attached[0].Command != c.command || *back.Attached[0].Cron != c.want {
				t.Errorf("%+v", back.Attached)
			}
		})
	}
}

// As uWSGI has it: a day and a weekday are enough one by one, but only if both
// are said.
func TestCronMatches(t *testing.T) {
	for _, c := range []struct {
		cron, at string
		want     bool
	}{
		{"-1 -1 -1 -1 -1", "2026-11-21 02:06", true},
		{"6 2 -1 -1 -1", "2026-11-21 02:06", true},
		{"6 2 -1 -1 -1", "2026-11-21 02:07", false},
		{"6 2 -1 -1 -1", "2026-11-21 03:06", false},
		{"-5 -1 -1 -1 -1", "2026-11-21 02:05", true},
		{"-5 -1 -1 -1 -1", "2026-11-21 02:06", false},
		{"-60 -24 -1 -1 -1", "2026-11-21 00:00", true},
		{"-60 -24 -1 -1 -1", "2026-11-21 00:01", false},
		{"0 -6 -1 -1 -1", "2026-11-21 18:00", true},
		{"0 -6 -1 -1 -1", "2026-11-21 19:00", false},
		{"0 0 1 -1 -1", "2026-11-01 00:00", true},
		{"0 0 -2 -1 -1", "2026-11-22 00:00", true},
		{"0 0 -2 -1 -1", "2026-11-21 00:00", false},
		{"0 0 1 -3 -1", "2026-09-01 00:00", true},
		{"0 0 1 -3 -1", "2026-11-01 00:00", false},
		{"0 0 1 11 -1", "2026-11-01 00:00", true},
		{"0 0 1 10 -1", "2026-11-01 00:00", false},
		{"0 0 -1 -1 0", "2026-11-22 00:00", true}, // a Sunday
		{"0 0 -1 -1 7", "2026-11-22 00:00", true},
		{"0 0 -1 -1 7", "2026-11-21 00:00", false},
		{"0 0 -1 -1 -3", "2026-11-21 00:00", true}, // 6
		{"0 0 -1 -1 -3", "2026-11-20 00:00", false},
		{"0 0 21 -1 1", "2026-11-21 00:00", true},  // the day
		{"0 0 21 -1 1", "2026-11-23 00:00", true},  // the weekday
		{"0 0 21 -1 1", "2026-11-24 00:00", false}, // neither
		{"0 0 21 -1 -2", "2026-11-22 00:00", false},
	} {
		t.Run(c.cron+" at "+c.at, func(t *testing.T) {
			at, err := time.Parse("2006-01-02 15:04", c.at)
			if err != nil {
				t.Fatal(err)
			}
			if got := good(t, "cron = "+c.cron+" a").Attached[0].Cron.Matches(at); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
