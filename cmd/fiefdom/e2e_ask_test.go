package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

func (r *realm) answers(addr netip.Addr) bool {
	_, err := r.get(addr, "/")
	return err == nil
}

// get asks the agent at addr, from the host.
func (r *realm) get(addr netip.Addr, path string) (string, error) {
	return r.ask(http.MethodGet, addr, path, nil, patience)
}

// sh runs a shell command in a vassal's jail, by its agent.
func (r *realm) sh(s emperor.Status, command string) (string, error) {
	return r.ask(http.MethodPost, s.Addresses[0], "/sh", strings.NewReader(command), 10*time.Minute)
}

// mustSh is sh for a command that has to succeed.
func (r *realm) mustSh(s emperor.Status, command string) string {
	r.t.Helper()
	out, err := r.sh(s, command)
	if err != nil {
		r.t.Fatalf("in the jail of %s: %s: %v\n%s", s.Name, command, err, out)
	}
	return out
}

func (r *realm) ask(method string, addr netip.Addr, path string, body io.Reader, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), timeout)
	defer cancel()
	url := "http://" + net.JoinHostPort(addr.String(), "8000") + path
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return "", err
	}
	return bodyOf(clientIn(r.Host).Do(req))
}

// bodyOf is what a server answered; a status other than 200 is an error, too.
func bodyOf(resp *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(out), err
}

// clientIn is an HTTP client whose connections begin in a namespace.
func clientIn(ns *nettest.NS) *http.Client {
	dial := func(_ context.Context, network, address string) (c net.Conn, err error) {
		err = netns.Do(ns.Handle, func() error {
			c, err = net.DialTimeout(network, address, 2*time.Second)
			return err
		})
		return c, err
	}
	return &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
}

// inet serves HTTP on the internet, port 80, until the test's end. Without a
// handler of its own it answers with the address that it sees the client under.
func (r *realm) inet(addr netip.Addr, handler http.HandlerFunc) {
	r.t.Helper()
	if handler == nil {
		handler = func(w http.ResponseWriter, req *http.Request) {
			host, _, _ := net.SplitHostPort(req.RemoteAddr)
			fmt.Fprintln(w, host)
		}
	}
	var l net.Listener
	r.Inet.Do(r.t, func() {
		var err error
		if l, err = net.Listen("tcp", net.JoinHostPort(addr.String(), "80")); err != nil {
			r.t.Fatal(err)
		}
	})
	server := &http.Server{Handler: handler}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	r.t.Cleanup(func() { server.Close(); <-done })
}
