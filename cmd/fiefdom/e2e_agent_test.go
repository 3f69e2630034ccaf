package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
)

// agent is the app of the tests' vassals: a server on port 8000 (or the port in
// its argument) that does in its jail what a test asks of it. GET / answers
// with its pid, POST /sh runs the body as a shell command and answers with its
// output: status 500 if the command failed. It answers on the socket that it has
// as its descriptor 0, too, if it has one.
func agent() {
	runtime.UnlockOSThread()
	port := "8000"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, os.Getpid())
	})
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
	if door, err := net.FileListener(os.Stdin); err == nil {
		go func() { fmt.Fprintln(os.Stderr, http.Serve(door, nil)) }() // until the end
	}
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":"+port, nil))
	os.Exit(1)
}
