package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"fiefdom/internal/ini"
)

// inert is an ini as it is written: its includes followed and its conditions
// asked, but nothing run, and nothing read for a value.
type inert struct {
	File         string          `json:"file"` // as its positions name it
	Pairs        []ini.Pair      `json:"pairs"`
	Skipped      []ini.Pair      `json:"skipped"`  // their condition does not hold here
	Problems     ini.Errors      `json:"problems"` // warnings too
	Placeholders map[string]bool `json:"placeholders"`
	Strict       bool            `json:"strict"`
}

// The words of the flag --read.
const (
	readVassals = "vassals"
	readAny     = "any"
)

// emperors says that the file is an emperor's: one with emperor or
// tuntap-router.
func (in inert) emperors() bool {
	for _, p := range in.Pairs {
		if p.Key == "emperor" || p.Key == "tuntap-router" {
			return true
		}
	}
	return false
}

// file joins what was read with what surrounds it; before and after may be empty.
func (in inert) file(before, after []inert) *ini.File {
	f := &ini.File{Name: in.File, Strict: in.Strict, Placeholders: map[string]bool{}}
	for _, one := range slices.Concat(before, []inert{in}, after) {
		f.Pairs = append(f.Pairs, one.Pairs...)
		for name := range one.Placeholders {
			f.Placeholders[name] = true
		}
	}
	return f
}

// Bounds of reading files under their owner's rights.
const (
	inertBatch = 256
	inertTime  = 10 * time.Second
)

// readOwned reads files, each with its owner's rights, in their order.
func readOwned(paths []string, vassals bool) []inert {
	type id struct{ uid, gid uint32 }
	got := make([]inert, len(paths))
	tenants := map[id][]int{}
	for i, path := range paths {
		if owner, foreign := ownerOf(path); foreign {
			of := id{owner.Uid, owner.Gid}
			tenants[of] = append(tenants[of], i)
			continue
		}
		got[i] = readInert(paths[i:i+1], vassals)[0]
	}
	for of, indexes := range tenants {
		for batch := range slices.Chunk(indexes, inertBatch) {
			var names []string
			for _, i := range batch {
				names = append(names, paths[i])
			}
			for n, in := range readAs(syscall.Credential{Uid: of.uid, Gid: of.gid}, names, vassals) {
				got[batch[n]] = in
			}
		}
	}
	return got
}

// readAs reads files of one owner in a process that has his rights, and takes
// its answer for what it is: his word.
func readAs(owner syscall.Credential, paths []string, vassals bool) []inert {
	ctx, cancel := context.WithTimeout(context.Background(), inertTime)
	defer cancel()
	what := readAny
	if vassals {
		what = readVassals
	}
	cmd := asOwner(ctx, owner, append([]string{"migrate", "--read", what, "--"}, paths...)...)
	var out limited
	cmd.Stdout = &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var got []inert
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &got)
	}
	if err == nil && len(got) != len(paths) {
		err = fmt.Errorf("%d answers about %d files", len(got), len(paths))
	}
	if err != nil {
		got = make([]inert, len(paths))
	}
	for i, path := range paths {
		got[i].File = path
		if err != nil {
			got[i].Problems = ini.Errors{{Pos: ini.Pos{File: path}, Message: fmt.Sprintf("it cannot be read with the rights of its owner, uid %d, within %s: %v", owner.Uid, inertTime, err)}}
		}
	}
	return got
}

// limited is a buffer that fails when it gets more than any files can have.
type limited struct{ bytes.Buffer }

func (b *limited) Write(p []byte) (int, error) {
	const most = 256 << 20 // bytes
	if b.Len()+len(p) > most {
		return 0, errors.New("too much")
	}
	return b.Buffer.Write(p)
}

// readInert reads files with the rights of this process. A vassal's names
// begin in its own folder, an emperor's where the command was started.
func readInert(paths []string, vassals bool) []inert {
	var got []inert
	for _, path := range paths {
		in := readInDir(path, "")
		if vassals || !in.emperors() {
			in = readInDir(path, filepath.Dir(path))
		}
		got = append(got, in)
	}
	return got
}

func readInDir(path, dir string) inert {
	name := path
	if dir != "" {
		name = filepath.Base(path)
	}
	var skipped []ini.Pair
	nothing := func(string) ([]byte, error) { return nil, nil }
	options := ini.Options{
		Dir: dir, IsOption: knownToEmperor, Literal: true, Exec: nothing, HTTP: nothing,
		Resolve: func(host string) (string, error) { return "@(" + host + ")", nil }, // looks unread, as it is
		Skipped: func(p ini.Pair) { skipped = append(skipped, p) },
	}
	if dir == "" { // what an emperor's file may use, and a vassal's may not
		options.Environ, options.Stdin = os.Environ(), strings.NewReader("")
		options.FD = func(int) ([]byte, error) { return nil, nil }
	}
	f, err := ini.Load(name, options)
	problems := f.Warnings
	if errs, ok := errors.AsType[ini.Errors](err); ok {
		problems = errs
	}
	// A command that is not run has no options; that is no news.
	problems = slices.DeleteFunc(problems, func(e ini.Error) bool { return strings.Contains(e.Pos.File, "://") })
	in := inert{File: path, Pairs: f.Pairs, Skipped: skipped, Problems: problems, Placeholders: f.Placeholders, Strict: f.Strict}
	place := func(p *ini.Pos) {
		if dir != "" && p.File != "" && !filepath.IsAbs(p.File) {
			p.File = filepath.Join(dir, p.File)
		}
	}
	for i := range in.Pairs {
		place(&in.Pairs[i].Pos)
	}
	for i := range in.Skipped {
		place(&in.Skipped[i].Pos)
	}
	for i := range in.Problems {
		place(&in.Problems[i].Pos)
	}
	return in
}
