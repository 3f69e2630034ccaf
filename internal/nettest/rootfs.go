package nettest

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// library finds the files in ldd's answer.
var library = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// Rootfs makes a small root file system in dir: the programs, found in PATH,
// with their libraries where they are on this machine, /bin/sh, and empty
// folders to mount on.
func Rootfs(t testing.TB, dir string, programs ...string) {
	t.Helper()
	for _, folder := range []string{"bin", "proc", "dev", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, program := range append(programs, "sh") {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatal(err)
		}
		copyFile(t, path, filepath.Join(dir, "bin", filepath.Base(path)))
		libraries, err := exec.CommandContext(t.Context(), "ldd", path).Output()
		if err != nil {
			continue // a static one
		}
		for _, m := range library.FindAllSubmatch(libraries, -1) {
			copyFile(t, string(m[1]), filepath.Join(dir, string(m[1])))
		}
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
