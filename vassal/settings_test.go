package vassal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"fiefdom/internal/ini"
	"fiefdom/internal/nettest"
)

func TestWayOfTheSettings(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		ini      string
		way      Settings
		document string
	}{
		"a uwsgi": {
			"psgi = a.pl\nprocesses = 2\nuid = 7\n", SettingsFile, "[uwsgi]\nmaster = true\npsgi = a.pl\nprocesses = 2\n",
		},
		"its own master":            {"master = false\npsgi = a.pl\n", SettingsFile, "[uwsgi]\nmaster = false\npsgi = a.pl\n"},
		"a percent means itself":    {"psgi = a%%b.pl\n", SettingsFile, "[uwsgi]\nmaster = true\npsgi = a%%b.pl\n"},
		"a uwsgi that does not":     {"psgi = a.pl\nemperor-protocol = false\n", SettingsNone, ""},
		"a command":                 {"command = a\n", SettingsNone, ""},
		"a command with others'":    {"command = a\nprocesses = 2\n", SettingsNone, ""},
		"a command that speaks":     {"command = a\nemperor-protocol = true\n", SettingsNone, ""},
		"one that has options too":  {"command = a\nemperor-protocol = true\nprocesses = 2\nuid = 7\n", SettingsPipe, "[uwsgi]\nprocesses = 2\n"},
		"and some that nobody has ": {"command = a\nemperor-protocol = true\nmine = 2\n", SettingsPipe, "[uwsgi]\nmine = 2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, errs := parse(t, tc.ini)
			if errs.Failed() {
				t.Fatal(errs)
			}
			if way, document := c.Settings(); way != tc.way || string(document) != tc.document {
				t.Errorf("%q %q, want %q %q", way, document, tc.way, tc.document)
			}
			if way, _ := c.Settings(); way == SettingsPipe && len(c.Needless) > 0 {
				t.Errorf("needless: %q", c.Needless)
			}
		})
	}
}

// A uwsgi's value that no line can hold is an argument; a command's is an error.
func TestSettingsThatNoLineHolds(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]ini.Pair{
		"line break":       {Key: "a", Value: "b\nc"},
		"blank before":     {Key: "a", Value: " b"},
		"blank after":      {Key: "a", Value: "b\t"},
		"comment":          {Key: ";a", Value: "b"},
		"section":          {Key: "[a", Value: "b"},
		"no name":          {Key: "", Value: "b"},
		"more than a name": {Key: "a=b", Value: "c"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app := &Config{App: []ini.Pair{o}}
			if way, _ := app.Settings(); way != SettingsNone {
				t.Errorf("way %q", way)
			}
			yes := true
			command := &Config{Command: []string{"a"}, Protocol: &yes, Pushed: []ini.Pair{o}}
			if errs := command.Validate(); !errs.Failed() || !strings.Contains(errs.Error(), "ini") {
				t.Errorf("errors: %v", errs)
			}
		})
	}
}

func TestFrame(t *testing.T) {
	t.Parallel()
	b, err := frame(bytes.Repeat([]byte{'x'}, 0x1234))
	if err != nil || len(b) != 4+0x1234 || !bytes.Equal(b[:5], []byte{115, 0x34, 0x12, 0, 'x'}) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := frame(make([]byte, 65535)); err != nil {
		t.Error(err)
	}
	if _, err := frame(make([]byte, 65536)); err == nil || !strings.Contains(err.Error(), "65536 bytes") || !strings.Contains(err.Error(), "file") {
		t.Errorf("too long: %v", err)
	}
	yes := true
	c := &Config{Command: []string{"a"}, Protocol: &yes, Pushed: []ini.Pair{{Key: "a", Value: strings.Repeat("b", 65536)}}}
	if errs := c.Validate(); !errs.Failed() {
		t.Error("an ini with too many options is good")
	}
}

// One document waits in the pipe, the largest too, and never a part of one.
func TestConfigPipe(t *testing.T) {
	nettest.NoLeaks(t)
	document := bytes.Repeat([]byte("0123456789abcde\n"), 4096)[:65535]
	s, theirs, err := newSettings(SettingsPipe, document)
	if err != nil {
		t.Fatal(err)
	}
	defer s.file.Close()
	defer theirs.Close()
	read := func(want []byte) {
		t.Helper()
		if s.fresh() {
			t.Error("a document waits, and the pipe is fresh")
		}
		b := make([]byte, 4+len(want))
		if _, err := io.ReadFull(theirs, b); err != nil || !bytes.Equal(b[4:], want) || int(b[1])+256*int(b[2]) != len(want) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if !s.fresh() {
			t.Error("all is read, and the pipe is not fresh")
		}
	}
	read(document)
	if err := s.put([]byte("a")); err != nil {
		t.Fatal(err)
	}
	read([]byte("a"))
	theirs.Close()
	if err := s.put([]byte("b")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("nobody reads it: %v", err)
	}
}

// The app reads the newest document whenever it opens its file, and can write
// none.
func TestSettingsFile(t *testing.T) {
	nettest.NoLeaks(t)
	s, theirs, err := newSettings(SettingsFile, []byte("first and long"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.file.Close()
	defer theirs.Close()
	for _, want := range []string{"first and long", "short", "", "once more"} {
		if want != "first and long" {
			if err := s.put([]byte(want)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			f, err := os.Open(theirs.Name())
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(f)
			if err = errors.Join(err, f.Close()); err != nil || string(b) != want {
				t.Errorf("%q, %v; want %q", b, err, want)
			}
		}
	}
	if _, err := theirs.Write([]byte("mine")); !errors.Is(err, unix.EBADF) {
		t.Errorf("the app writes: %v", err)
	}
	if st, err := theirs.Stat(); err != nil || st.Mode().Perm() != 0o444 {
		t.Errorf("%v, %v", st, err)
	}
}
