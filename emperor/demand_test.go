package emperor

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
	"fiefdom/vassal"
)

func TestDemandOptions(t *testing.T) {
	parse := func(text string) (*Config, ini.Errors) {
		path := filepath.Join(t.TempDir(), "emperor.ini")
		write(t, path, "[uwsgi]\n"+text+"\n")
		f, err := ini.Load(path, ini.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return Parse(f)
	}
	for text, want := range map[string]demandForm{
		"":                                 notOnDemand,
		"emperor-on-demand-extension = .s": byExtension,
		"emperor-on-demand-ext = _sock":    byExtension,
		"emperor-on-demand-dir = /run/s":   byDirectory,
		"emperor-on-demand-directory = s":  byDirectory,
		"emperor-on-demand-exec = echo":    byExec,
		"emperor-on-demand-exec = a\nemperor-on-demand-dir = /b\nemperor-on-demand-ext = .c": byExtension,
	} {
		if c, errs := parse(text); errs.Failed() || c.OnDemand.form() != want {
			t.Errorf("%q: %v, %v", text, c.OnDemand.form(), errs)
		}
	}
	for _, text := range []string{
		"emperor-on-demand-extension =", "emperor-on-demand-extension = /x", "emperor-on-demand-directory =", "emperor-on-demand-exec =",
		"emperor-on-demand-chmod-socket = 999", "emperor-on-demand-chown-socket = no-such-user", "emperor-on-demand-chown-socket = :",
	} {
		if _, errs := parse(text); !errs.Failed() {
			t.Errorf("%q was taken", text)
		}
	}
}

// found runs one form over one good ini and returns its door and its errors.
func found(t *testing.T, o OnDemand, tyrant bool, name, sidecar string) (*vassal.Config, ini.Errors) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, name+".ini")
	write(t, path, "[uwsgi]\ncommand = /bin/true\n")
	if sidecar != "" {
		write(t, path+o.Extension, sidecar)
	}
	c := &Config{OnDemand: o, Tyrant: tyrant, Monitors: []Monitor{{Dir: dir}}}
	f, err := c.withDoor(iniFile{name: name, path: path})
	if err != nil {
		t.Fatal(err)
	}
	x := expandFileOf(f.request(), new(Common), uint32(os.Getuid()), uint32(os.Getgid()))
	x.file = f
	e := &Emperor{Config: c}
	got := []expansion{x}
	e.findDoors(t.Context(), got)
	return got[0].Config, got[0].Errors
}

func TestFindDoors(t *testing.T) {
	for name, tc := range map[string]struct {
		form    OnDemand
		sidecar string
		want    string // the door
		err     string // or what the error says
	}{
		"file":              {OnDemand{Extension: ".s"}, "/run/x.sock\n", "/run/x.sock", ""},
		"file with a port":  {OnDemand{Extension: ".s"}, ":8080\n", "0.0.0.0:8080", ""},
		"no file":           {OnDemand{Extension: ".s"}, "", "", ""},
		"empty file":        {OnDemand{Extension: ".s"}, "\n", "", "no address"},
		"nonsense":          {OnDemand{Extension: ".s"}, "a:b:c", "", "is no address"},
		"large file":        {OnDemand{Extension: ".s"}, strings.Repeat("x", demandBytes+1), "", "are no address"},
		"directory":         {OnDemand{Directory: "/run/doors"}, "", "/run/doors/blog.socket", ""},
		"command":           {OnDemand{Exec: "echo /run/y.sock; :"}, "", "/run/y.sock", ""},
		"what it gets":      {OnDemand{Exec: `printf "/run/%s.sock\n"`}, "", "/run/blog.ini.sock", ""},
		"it says nothing":   {OnDemand{Exec: "true"}, "", "", ""},
		"it fails silently": {OnDemand{Exec: "false"}, "", "", ""},
		"it fails speaking": {OnDemand{Exec: "echo /run/z.sock; false"}, "", "/run/z.sock", ""},
		"it is killed":      {OnDemand{Exec: "echo /run/z.sock; kill -9 $$; :"}, "", "", "killed"},
		"it says too much":  {OnDemand{Exec: "yes; :"}, "", "", "writes more than"},
		"it says nonsense":  {OnDemand{Exec: "echo a:b; :"}, "", "", "is no address"},
	} {
		t.Run(name, func(t *testing.T) {
			c, errs := found(t, tc.form, false, "blog", tc.sidecar)
			if tc.err != "" {
				if !errs.Failed() || !strings.Contains(errs.Error(), tc.err) {
					t.Errorf("%v", errs)
				}
				return
			}
			if errs.Failed() || c.Door != tc.want {
				t.Errorf("%q, %v", c.Door, errs)
			}
		})
	}
}

// A file's name is no text for the shell.
func TestNamesAreNoCommands(t *testing.T) {
	proof := filepath.Join(t.TempDir(), "proof")
	t.Setenv("PROOF", proof)
	name := "a$(touch $PROOF)`touch $PROOF`\";touch $PROOF;\""
	c, errs := found(t, OnDemand{Exec: `printf "@%s"`}, false, name, "")
	if errs.Failed() || c.Door != "@"+name+".ini" {
		t.Errorf("%q, %v", c.Door, errs)
	}
	if _, err := os.Stat(proof); err == nil {
		t.Error("the name was run")
	}
}

func TestDemandCommandIsBounded(t *testing.T) {
	e := testEmperor(t)
	e.Config.OnDemand.Exec = "sleep 1000; :"
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	got := []expansion{{Name: "blog", Config: goodVassal(t, "blog", ""), file: iniFile{path: "/tmp/blog.ini"}}}
	began := time.Now()
	e.findDoors(ctx, got)
	if !got[0].Errors.Failed() || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", got[0].Errors, time.Since(began))
	}
}

func TestTenantsProgramsAreNotRun(t *testing.T) {
	nettest.Root(t)
	dir := sharedDir(t)
	script := func(name string, uid int, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		write(t, path, "#!/bin/sh\necho /run/x.sock\n")
		if err := os.Chown(path, uid, uid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for command, fine := range map[string]bool{
		script("roots", 0, 0o755):                      true,
		"sh " + script("roots-script", 0, 0o644):       true,
		"echo":                                         true,
		script("tenants", 61200, 0o755):                false,
		"sh " + script("tenants-script", 61200, 0o644): false,
		script("open", 0, 0o757):                       false,
	} {
		c, errs := found(t, OnDemand{Exec: command}, true, "blog", "")
		if fine && (errs.Failed() || c.Door == "") || !fine && (!errs.Failed() || c.Door != "") {
			t.Errorf("%s: %q, %v", command, c.Door, errs)
		}
	}
}

func TestDoorOf(t *testing.T) {
	mode, www := uint32(0o660), 33
	for name, tc := range map[string]struct {
		emperor func(*Config)
		ini     string
		door    string
		want    doorRights
		as      *owner // with whose rights it is made
		err     string
	}{
		"the app's":                          {nil, "uid = 7\ngid = 8", "/run/x", doorRights{uid: 7, gid: 8, mode: 0o666}, nil, ""},
		"root's":                             {nil, "", "/run/x", doorRights{uid: -1, gid: -1, mode: 0o666}, nil, ""},
		"the ini's":                          {nil, "uid = 7\nchmod-socket = 600\nchown-socket = 9:10", "/run/x", doorRights{uid: 9, gid: 10, mode: 0o600}, nil, ""},
		"the emperor's":                      {func(c *Config) { c.OnDemand.Rights = vassal.SocketRights{Mode: &mode, GID: &www} }, "uid = 7", "/run/x", doorRights{uid: 7, gid: www, mode: 0o660}, nil, ""},
		"the ini's first":                    {func(c *Config) { c.OnDemand.Rights = vassal.SocketRights{Mode: &mode, GID: &www} }, "chmod-socket = 666\nuid = 7", "/run/x", doorRights{uid: 7, gid: www, mode: 0o666}, nil, ""},
		"a tenant's path":                    {tenants, "", "/run/x", doorRights{uid: 7, gid: 8, mode: 0o666}, &owner{7, 8}, ""},
		"a tenant's own words":               {tenants, "chown-socket = 7:8\nchmod-socket = 600", "/run/x", doorRights{uid: 7, gid: 8, mode: 0o600}, &owner{7, 8}, ""},
		"a tenant's group is the operator's": {func(c *Config) { tenants(c); c.OnDemand.Rights.GID, c.OnDemand.Rights.UID = &www, &www }, "", "/run/x", doorRights{uid: 7, gid: www, mode: 0o666}, &owner{7, 8}, ""},
		"a tenant for another":               {tenants, "chown-socket = 9", "/run/x", doorRights{}, nil, "tyrant"},
		"a tenant's group":                   {tenants, "chown-socket = :0", "/run/x", doorRights{}, nil, "tyrant"},
		"a tenant's port":                    {tenants, "", "0.0.0.0:22", doorRights{}, nil, "tyrant"},
		"a tenant's name":                    {tenants, "", "@x", doorRights{}, nil, "tyrant"},
		"the operator's port":                {func(c *Config) { c.Tyrant = true; c.OnDemand.Exec = "x" }, "", "0.0.0.0:80", doorRights{uid: 7, gid: 8, mode: 0o666}, nil, ""},
		"the operator's folder":              {func(c *Config) { c.Tyrant = true; c.OnDemand.Directory = "/run/d" }, "", "/run/d/blog.socket", doorRights{uid: 7, gid: 8, mode: 0o666}, nil, ""},
		"another's":                          {nil, "", "/run/taken", doorRights{}, nil, "already that of shop.ini"},
	} {
		t.Run(name, func(t *testing.T) {
			e := testEmperor(t)
			if tc.emperor != nil {
				tc.emperor(e.Config)
			}
			e.newMember(iniFile{name: "shop", path: "shop.ini"})
			e.vassals["shop"].config = &vassal.Config{Name: "shop", Door: "/run/taken"}
			c := goodVassal(t, "blog", tc.ini)
			if e.Config.Tyrant {
				if errs := tyrant(c, owner{7, 8}); errs.Failed() {
					t.Fatal(errs)
				}
			}
			c.Door = tc.door
			r, err := e.resolve(c)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := r.door
			if (got.as == nil) != (tc.as == nil) || tc.as != nil && *got.as != *tc.as || got.rights != tc.want || got.address.String() != tc.door {
				t.Errorf("%+v", got)
			}
		})
	}
}

func tenants(c *Config) { c.Tyrant, c.OnDemand.Extension = true, ".s" }

// What a process writes is bounded also where it is copied in one go.
func TestLimitedBuffer(t *testing.T) {
	var out bytes.Buffer
	n, err := io.Copy(&limitedBuffer{Buffer: &out, left: 10}, strings.NewReader(strings.Repeat("x", 11)))
	if err == nil || out.Len() > 10 {
		t.Errorf("%d bytes of %d, %v", out.Len(), n, err)
	}
	if _, err := io.Copy(&limitedBuffer{Buffer: &out, left: 10}, strings.NewReader("0123456789")); err != nil {
		t.Error(err)
	}
}
