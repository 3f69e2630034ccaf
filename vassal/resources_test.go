package vassal

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
)

func TestResourcesOfAnIni(t *testing.T) {
	disk := nettest.Disk(t)
	for name, c := range map[string]struct {
		text string
		want Resources
	}{
		"CPUs":         {"limit-cpu = 1.5", Resources{CPU: 1500}},
		"whole CPUs":   {"limit-cpu = 2", Resources{CPU: 2000}},
		"share":        {"limit-cpu = 50%", Resources{CPU: 500}},
		"least share":  {"limit-cpu = 0.01", Resources{CPU: 10}},
		"no CPU limit": {"limit-cpu = max", Resources{CPU: Unlimited}},
		"last counts":  {"limit-cpu = 1\nlimit-cpu = 2", Resources{CPU: 2000}},
		"bytes":        {"limit-memory = 67108864", Resources{Memory: 64 << 20}},
		"kilobytes":    {"limit-memory = 65536K", Resources{Memory: 64 << 20}},
		"megabytes":    {"limit-memory = 64m", Resources{Memory: 64 << 20}},
		"gigabytes":    {"limit-memory = 2G", Resources{Memory: 2 << 30}},
		"no memory":    {"limit-memory = max", Resources{Memory: Unlimited}},
		"pids":         {"limit-pids = 64", Resources{PIDs: 64}},
		"no pids":      {"limit-pids = max", Resources{PIDs: Unlimited}},
		"disk":         {"limit-io = " + disk + " wbps=10M riops=100", Resources{IO: []IOLimit{{Device: disk, Name: disk, WriteBytes: 10 << 20, ReadRequests: 100}}}},
		"disk again":   {"limit-io = " + disk + " wbps=10M\nlimit-io = " + disk + " rbps=1K", Resources{IO: []IOLimit{{Device: disk, Name: disk, ReadBytes: 1024}}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := parseResources(t, c.text)
			if got.At == nil {
				t.Error("it is not known where the option is")
			}
			if got.At = nil; !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if err := got.check(); err != nil {
				t.Errorf("what was read is refused: %v", err)
			}
		})
	}
}

// parseResources reads lines without what an ini does with a %.
func parseResources(t *testing.T, text string) Resources {
	t.Helper()
	var r Resources
	if errs := ini.Decode(&r, ResourceOptions(func(r *Resources) *Resources { return r }, ""), pairsOf(text)); errs.Failed() {
		t.Fatal(errs)
	}
	return r
}

func pairsOf(text string) []ini.Pair {
	var pairs []ini.Pair
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, "=")
		pairs = append(pairs, ini.Pair{Key: strings.TrimSpace(key), Value: strings.TrimSpace(value), Pos: ini.Pos{File: "a.ini", Line: len(pairs) + 1}})
	}
	return pairs
}

func TestBadResources(t *testing.T) {
	disk := nettest.Disk(t)
	for _, text := range []string{
		"limit-cpu = ", "limit-cpu = 0", "limit-cpu = -1", "limit-cpu = x", "limit-cpu = 0.001", "limit-cpu = NaN", "limit-cpu = Inf", "limit-cpu = 1e9", "limit-cpu = 0%",
		"limit-memory = ", "limit-memory = 0", "limit-memory = -64M", "limit-memory = 1M", "limit-memory = 64X", "limit-memory = 9999999999G", "limit-memory = 64MM",
		"limit-pids = 0", "limit-pids = 3", "limit-pids = -1", "limit-pids = 9999999999", "limit-pids = 1.5",
		"limit-io = ", "limit-io = " + disk, "limit-io = /dev/null wbps=1M", "limit-io = /dev/nothing wbps=1M", "limit-io = 999:999 wbps=1M",
		"limit-io = " + disk + " wbps=0", "limit-io = " + disk + " wbps", "limit-io = " + disk + " bps=1", "limit-io = " + disk + " wbps=-1",
	} {
		var r Resources
		if errs := ini.Decode(&r, ResourceOptions(func(r *Resources) *Resources { return r }, ""), pairsOf(text)); !errs.Failed() {
			t.Errorf("%s: read as %+v", text, r)
		}
	}
	for name, r := range map[string]Resources{
		"CPU": {CPU: 1}, "negative CPU": {CPU: -2}, "memory": {Memory: 1}, "negative memory": {Memory: math.MinInt64}, "pids": {PIDs: 2}, "device": {IO: []IOLimit{{Device: "8:0\n8:1 rbps=1"}}},
		"devices": {IO: make([]IOLimit, maxIO+1)},
	} {
		if r.check() == nil {
			t.Errorf("%s: %+v is taken from an expander", name, r)
		}
	}
}

func TestResourcesUnderTheEmperors(t *testing.T) {
	emperors := Resources{CPU: 1000, Memory: 1 << 30, PIDs: 100, IO: []IOLimit{{Device: "8:0", Name: "/dev/sda", WriteBytes: 1000, ReadRequests: 7}}}
	io := func(l IOLimit) Resources { l.Device, l.Name = "8:0", "/dev/sda"; return Resources{IO: []IOLimit{l}} }
	for name, c := range map[string]struct {
		own     Resources
		tenant  bool
		want    Resources // when it is allowed
		refused string    // else the option
	}{
		"nothing":         {Resources{}, false, emperors, ""},
		"tenant, nothing": {Resources{}, true, emperors, ""},
		"less":            {Resources{CPU: 500, Memory: 64 << 20, PIDs: 50}, true, Resources{CPU: 500, Memory: 64 << 20, PIDs: 50, IO: emperors.IO}, ""},
		"as much":         {Resources{CPU: 1000, Memory: 1 << 30, PIDs: 100}, true, emperors, ""},
		"more":            {Resources{CPU: 2000, Memory: 2 << 30, PIDs: 200}, false, Resources{CPU: 2000, Memory: 2 << 30, PIDs: 200, IO: emperors.IO}, ""},
		"none":            {Resources{CPU: Unlimited, Memory: Unlimited, PIDs: Unlimited}, false, Resources{CPU: Unlimited, Memory: Unlimited, PIDs: Unlimited, IO: emperors.IO}, ""},
		"tenant, CPU":     {Resources{CPU: 1001}, true, Resources{}, LimitCPU},
		"tenant, memory":  {Resources{Memory: 1<<30 + 1}, true, Resources{}, LimitMemory},
		"tenant, pids":    {Resources{PIDs: 101}, true, Resources{}, LimitPIDs},
		"tenant, no CPU":  {Resources{CPU: Unlimited}, true, Resources{}, LimitCPU},
		"tenant, no pids": {Resources{PIDs: Unlimited}, true, Resources{}, LimitPIDs},
		"tenant, disk":    {io(IOLimit{WriteBytes: 1001}), true, Resources{}, LimitIO},
		"less disk":       {io(IOLimit{WriteBytes: 999}), true, Resources{CPU: 1000, Memory: 1 << 30, PIDs: 100, IO: []IOLimit{{Device: "8:0", Name: "/dev/sda", WriteBytes: 999, ReadRequests: 7}}}, ""},
		"more disk":       {io(IOLimit{WriteBytes: 9999, ReadBytes: 1}), false, Resources{CPU: 1000, Memory: 1 << 30, PIDs: 100, IO: []IOLimit{{Device: "8:0", Name: "/dev/sda", ReadBytes: 1, WriteBytes: 9999, ReadRequests: 7}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := emperors.IO[0]
			if option, _ := c.own.Exceeds(&emperors); c.tenant && option != c.refused {
				t.Fatalf("refused %q, want %q", option, c.refused)
			}
			if got := c.own.Over(&emperors); c.refused == "" && !got.Same(&c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if emperors.IO[0] != before {
				t.Error("the emperor's own were changed")
			}
		})
	}
	// Without a word of the emperor's an owner may limit himself.
	if option, _ := (&Resources{PIDs: 5000}).Exceeds(&Resources{}); option != "" {
		t.Errorf("%s is more than nothing said", option)
	}
}

// What is said of all is no more than the most of one, and that where nothing is said.
func TestResourcesWithin(t *testing.T) {
	all := Resources{CPU: 1000, Memory: Unlimited, IO: []IOLimit{{Device: "8:0", WriteBytes: 1000}, {Device: "8:16", ReadBytes: 5}}}
	most := Resources{CPU: 2000, Memory: 1 << 30, PIDs: 50, IO: []IOLimit{{Device: "8:0", WriteBytes: 10, ReadRequests: 7}}}
	want := Resources{CPU: 1000, Memory: 1 << 30, PIDs: 50, IO: []IOLimit{{Device: "8:0", WriteBytes: 10, ReadRequests: 7}, {Device: "8:16", ReadBytes: 5}}}
	if got := all.Within(&most); !got.Same(&want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if most.IO[0].WriteBytes != 10 || all.IO[0].WriteBytes != 1000 {
		t.Error("one of them was changed")
	}
	if got := all.Within(&Resources{}); !got.Same(&all) {
		t.Errorf("without a bound it is %+v", got)
	}
}

func TestResourcesAsText(t *testing.T) {
	r := Resources{CPU: 1500, Memory: 64 << 20, PIDs: 7, IO: []IOLimit{{Name: "/dev/sda", WriteBytes: 10 << 20, ReadRequests: 100}, {Name: "8:16", ReadBytes: 1000}}}
	for option, want := range map[string]string{
		LimitCPU: "1.5", LimitMemory: "64M", LimitPIDs: "7", LimitIO: "/dev/sda wbps=10M riops=100, 8:16 rbps=1000",
	} {
		if got := r.Text(option); got != want {
			t.Errorf("%s is %q, want %q", option, got, want)
		}
		none := Resources{CPU: Unlimited, Memory: Unlimited, PIDs: Unlimited}
		if got := none.Text(option); got != "" {
			t.Errorf("without a limit %s is %q", option, got)
		}
	}
	for n, want := range map[int64]string{0: "0", 1: "1", 1023: "1023", 1024: "1K", 1 << 20: "1M", 3 << 29: "1536M", 1 << 40: "1T"} {
		if got := Size(n); got != want {
			t.Errorf("Size(%d) = %q, want %q", n, got, want)
		}
	}
}

// A part of a disk stands for the whole disk.
func TestDiskOfAPartition(t *testing.T) {
	parts, err := filepath.Glob("/sys/block/*/*/partition")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		part, err := os.ReadFile(filepath.Join(filepath.Dir(p), "dev"))
		if err != nil {
			t.Fatal(err)
		}
		disk, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(p)), "dev"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := diskOf(strings.TrimSpace(string(part))); err != nil || got != strings.TrimSpace(string(disk)) {
			t.Errorf("the disk of %s is %q (%v), want %s", part, got, err, disk)
		}
	}
	disk := nettest.Disk(t)
	if got, err := diskOf(disk); err != nil || got != disk {
		t.Errorf("the disk of %s is %q (%v)", disk, got, err)
	}
}
