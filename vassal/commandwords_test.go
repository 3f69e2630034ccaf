package vassal

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"fiefdom/internal/ini"
)

func TestWordsOfAShellAreWarnedOf(t *testing.T) {
	for command, word := range map[string]string{
		"cd /srv && ./run":             `"&&"`,
		"prog > /tmp/log":              `">"`,
		"prog --port $PORT":            `"$PORT"`,
		"prog | tee x":                 `"|"`,
		"sh -c 'cd /srv && ./run'":     "",
		"/bin/bash -c x $0":            "",
		"prog 'a && b' --rate=5>4 $":   "",
		"awk '{ print $1 }' /etc/motd": "",
	} {
		f := &ini.File{Name: "blog.ini", Pairs: []ini.Pair{{Key: "command", Value: command, Pos: ini.Pos{File: "blog.ini", Line: 7}}}}
		_, errs := Parse("blog", f)
		if word == "" {
			if len(errs) > 0 {
				t.Errorf("%s: %v", command, errs)
			}
			continue
		}
		if len(errs) != 1 || errs.Failed() || !strings.HasPrefix(errs[0].Error(), "blog.ini:7: "+word+" is an argument like others") {
			t.Errorf("%s: %v", command, errs)
		}
	}
}

func TestWhyThereIsNoProgram(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "app.sh")
	if err := os.WriteFile(script, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for program, want := range map[string]string{
		"pyhton3":                     "not found in $PATH; install it",
		"cd":                          "that is a word of the shell's",
		"python3 -m http.server":      "without the quotes",
		filepath.Join(dir, "nothing"): "no such file or directory",
		script:                        "may not run it (is it executable? chmod +x)",
	} {
		_, err := exec.LookPath(program)
		if err == nil {
			t.Fatalf("%s is there", program)
		}
		if text := noProgram(program, err).Error(); !strings.Contains(text, want) {
			t.Errorf("%s: %q does not say %q", program, text, want)
		}
	}
}
