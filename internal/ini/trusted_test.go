package ini

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHTTP(t *testing.T) {
	big := strings.Repeat("x", maxFile+1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/a.ini":
			w.Write([]byte("[uwsgi]\na = %o %n\nini = :b\n[b]\nb = %x\n"))
		case "/big":
			w.Write([]byte(big))
		case "/moved":
			http.Redirect(w, r, "/a.ini", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	o := Options{HTTP: readHTTP}
	for name, want := range map[string]string{
		"/a.ini":   "a = " + server.URL + "/a.ini\nini = :b\nb = b\n",
		"/a.ini:b": "b = \n",
		"/big":     "it has more than 1048576 bytes",
		"/moved":   "the server says 302 Found",
		"/no":      "the server says 404 Not Found",
	} {
		f, err := Load(server.URL+name, o)
		switch {
		case err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%s: %v, want %s", name, err, want)
		case err == nil && render(f.Pairs) != want:
			t.Errorf("%s: got\n%s\nwant\n%s", name, render(f.Pairs), want)
		}
	}
	if _, err := Load(server.URL+"/a.ini", Options{}); err == nil || !strings.Contains(err.Error(), "http:// is not read for this file") {
		t.Errorf("without leave: %v", err)
	}
}

// TestFD: an inherited descriptor is read to its end and stays open.
func TestFD(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if data, err := readFD(int(f.Fd())); err != nil || string(data) != "text\n" {
		t.Errorf("got %q, %v", data, err)
	}
	if _, err := f.Stat(); err != nil {
		t.Errorf("it was closed: %v", err)
	}
	if _, err := readFD(-1); err == nil {
		t.Error("descriptor -1 is no error")
	}
}

func TestTrusted(t *testing.T) {
	t.Setenv("UWSGI_PROCNAME", "me")
	main := filepath.Join(t.TempDir(), "main.ini")
	if err := os.WriteFile(main, []byte("[uwsgi]\nresolve = here=127.0.0.1\na = %(here) %(procname)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(main, Trusted(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if got := render(f.Pairs); !strings.HasSuffix(got, "a = 127.0.0.1 me\n") {
		t.Errorf("got %s", got)
	}
}

func TestBlob(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	text := "head" + "one\x03\x00\x00\x00\x00\x00\x00\x00" + "zero\x04\x00\x00\x00\x00\x00\x00\x00"
	if err := os.WriteFile(program, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for slot, want := range map[int64]string{0: "zero", 1: "one", 2: "", 3: "", -1: "", 1 << 40: ""} {
		got, err := blob(program, slot)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%d: %q, %v", slot, got, err)
		}
	}
	if _, err := elfSection(program, ".text"); err == nil {
		t.Error("a section of what is no program is no error")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if data, err := elfSection(self, ".go.buildinfo"); err != nil || len(data) == 0 {
		t.Errorf("a section of this program: %d bytes, %v", len(data), err)
	}
	if _, err := elfSection(self, ".nope"); err == nil {
		t.Error("a section that is not there is no error")
	}
}
