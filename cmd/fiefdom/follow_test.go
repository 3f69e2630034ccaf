package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fiefdom/emperor"
)

// twoEmperors answer one after the other: the first hangs up in the middle of what
// is followed, and the second ends it, or hangs up too.
func twoEmperors(t *testing.T, second bool, streams ...string) (dir string, asked *[]string) {
	t.Helper()
	dir, asked = t.TempDir(), &[]string{}
	l, err := net.Listen("unix", filepath.Join(dir, emperor.APISocket))
	if err != nil {
		t.Fatal(err)
	}
	var reign atomic.Int32
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := int(reign.Load())
		switch {
		case r.URL.Path == "/emperor" && n > 0 && !second:
			panic(http.ErrAbortHandler)
		case r.URL.Path == "/emperor":
			fmt.Fprintf(w, `{"instance":"shops","pid":%d,"began":"2026-01-0%dT00:00:00Z"}`, n+1, n+1)
		case r.URL.Path == "/vassals/blog":
			fmt.Fprint(w, `{"name":"blog","output":{}}`)
		default:
			*asked = append(*asked, r.URL.RawQuery)
			fmt.Fprint(w, streams[n])
			if n == 0 {
				reign.Add(1)
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); <-done })
	return dir, asked
}

func TestFollowGoesOnWithTheNextEmperor(t *testing.T) {
	var errs, got strings.Builder
	dir, asked := twoEmperors(t, true, `{"text":"one","next":"a.5"}`+"\n", `{"text":"two","next":"a.9"}`+"\n")
	f := &following{emperor.NewClient(dir), &errs, time.Minute}
	if err := followLogs(t.Context(), f, "blog", emperor.LogQuery{Follow: true, Last: 1}, logPrinter(&got, true, false)); err != nil {
		t.Error(err)
	}
	if want := "follow=&json=&next=a.5"; len(*asked) != 2 || (*asked)[1] != want {
		t.Errorf("asked %q, want %q then", *asked, want)
	}
	if got.String() != `{"text":"one"}`+"\n"+`{"text":"two"}`+"\n" || !strings.Contains(errs.String(), "emperor shops has ended") || !strings.Contains(errs.String(), "with pid 2") {
		t.Errorf("printed %q and %q", got.String(), errs.String())
	}
}

func TestFollowedEventsComeOnce(t *testing.T) {
	const at = `"time":"2100-01-01T00:00:01Z"`
	dir, asked := twoEmperors(t, true,
		`{"id":8,"time":"2100-01-01T00:00:00Z","kind":"a"}`+"\n"+`{"id":9,`+at+`,"kind":"b"}`+"\n",
		`{"id":9,`+at+`,"kind":"b"}`+"\n"+`{"id":9,`+at+`,"kind":"c"}`+"\n") // ids of a killed one are given again
	var errs, kinds strings.Builder
	enough := errors.New("enough")
	f := &following{emperor.NewClient(dir), &errs, time.Minute}
	err := followEvents(t.Context(), f, emperor.EventQuery{Follow: true}, func(ev emperor.Event) error {
		if kinds.WriteString(ev.Kind); ev.Kind == "c" {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || kinds.String() != "abc" {
		t.Errorf("%v, events %s", err, kinds.String())
	}
	if want := "follow=&since=2100-01-01T00%3A00%3A01Z"; len(*asked) != 2 || (*asked)[0] != "follow=" || (*asked)[1] != want {
		t.Errorf("asked %q", *asked)
	}
}

func TestFollowWaitsSoLong(t *testing.T) {
	dir, _ := twoEmperors(t, false, "")
	var errs strings.Builder
	f := &following{emperor.NewClient(dir), &errs, 20 * time.Millisecond}
	err := followEvents(t.Context(), f, emperor.EventQuery{Follow: true}, func(emperor.Event) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "waited 20ms for the next emperor") {
		t.Error(err)
	}
	dir, _ = twoEmperors(t, false, "")
	ctx, stop := context.WithCancel(t.Context())
	f = &following{emperor.NewClient(dir), writerFunc(func() { stop() }), time.Hour} // an interrupt while it waits
	if err := followEvents(ctx, f, emperor.EventQuery{Follow: true}, func(emperor.Event) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

type writerFunc func()

func (f writerFunc) Write(b []byte) (int, error) { f(); return len(b), nil }
