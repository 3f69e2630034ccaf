package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

// agent is the app of the tests' vassals: a server on port 8000 (or the port in
// its argument) that does in its jail what a test asks of it. GET / answers
// with its pid, POST /sh runs the body as a shell command and answers with its
// output: status 500 if the command failed. It answers on the socket that it has
// as its descriptor 0, too, if it has one. POST /fetch downloads what the body is
// the address of, and answers with a fetched. GET /peer answers with the address
// that the question came from; with a second argument, udp, so does each datagram.
// GET /forwarded answers with the address that a proxy says the question came from.
func agent() {
	runtime.UnlockOSThread()
	port := "8000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, os.Getpid())
	})
	http.HandleFunc("GET /peer", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, host)
	})
	http.HandleFunc("GET /forwarded", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Join(r.Header.Values("X-Forwarded-For"), " and "))
	})
	if len(os.Args) > 2 {
		go answerDatagrams(port)
	}
	http.HandleFunc("POST /sh", func(w http.ResponseWriter, r *http.Request) {
		command, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := exec.CommandContext(r.Context(), "/bin/sh", "-c", string(command)).CombinedOutput()
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			out = fmt.Appendf(out, "%v\n", err)
		}
		_, _ = w.Write(out)
	})
	http.HandleFunc("POST /fetch", func(w http.ResponseWriter, r *http.Request) {
		address, err := io.ReadAll(r.Body)
		if err == nil {
			var f fetched
			if f, err = download(string(address)); err == nil {
				_ = json.NewEncoder(w).Encode(f)
				return
			}
		}
		http.Error(w, err.Error(), http.StatusInternalServerError)
	})
	if door, err := net.FileListener(os.Stdin); err == nil {
		go func() { fmt.Fprintln(os.Stderr, http.Serve(door, nil)) }() // until the end
	}
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":"+port, nil))
	os.Exit(1)
}

// answerDatagrams tells each sender of a datagram his address, until the end.
func answerDatagrams(port string) {
	c, err := net.ListenPacket("udp", ":"+port)
	for err == nil {
		var from net.Addr
		if _, from, err = c.ReadFrom(make([]byte, 64)); err == nil {
			host, _, _ := net.SplitHostPort(from.String())
			_, err = c.WriteTo([]byte(host), from)
		}
	}
	fmt.Fprintln(os.Stderr, err)
}

// fetched is what came of a download.
type fetched struct {
	Hash  string
	Bytes int64
	Stall time.Duration // the longest time in which nothing came
}

func download(address string) (f fetched, err error) {
	resp, err := http.Get(address)
	if err != nil {
		return f, err
	}
	defer resp.Body.Close()
	hash, buf := sha256.New(), make([]byte, 256<<10)
	for last := time.Now(); err == nil; {
		var n int
		n, err = resp.Body.Read(buf)
		hash.Write(buf[:n])
		f.Bytes += int64(n)
		now := time.Now()
		f.Stall, last = max(f.Stall, now.Sub(last)), now
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	f.Hash = fmt.Sprintf("%x", hash.Sum(nil))
	return f, err
}
