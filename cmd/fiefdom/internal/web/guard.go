package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// requests bounds how many are answered at once: a page of many vassals takes some
// milliseconds and some hundred KB of the emperor's.
const requests = 8

// policy lets a page load our own style and script and nothing else, and nobody
// show it in a page of his own.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"

// guard lets through who may read, and what only reads.
type guard struct {
	key   string // that a request has to have; empty: who could connect may read
	where string // the file that has the key
	busy  chan struct{}
	next  http.Handler
}

func newGuard(o Options, next http.Handler) *guard {
	return &guard{key: o.Key, where: o.KeyFile, busy: make(chan struct{}, requests), next: next}
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("Cache-Control", "no-store")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	if status, why := g.refuse(r); status != 0 {
		h.Set("Connection", "close") // a stranger keeps no place
		switch status {
		case http.StatusMethodNotAllowed:
			h.Set("Allow", "GET, HEAD")
		case http.StatusUnauthorized:
			h.Set("WWW-Authenticate", `Basic realm="fiefdom", charset="UTF-8"`)
		}
		http.Error(w, why, status)
		return
	}
	select {
	case g.busy <- struct{}{}:
		defer func() { <-g.busy }()
		g.next.ServeHTTP(w, r)
	default:
		h.Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("%d requests are being answered already; come again", requests), http.StatusServiceUnavailable)
	}
}

// refuse says why a request is not answered; 0: it is.
func (g *guard) refuse(r *http.Request) (status int, why string) {
	switch {
	case !local(r.Host):
		// The name of a stranger's page that was made to lead to this machine
		// would give him what his visitor may read here.
		return http.StatusMisdirectedRequest, fmt.Sprintf(
			"this page answers to localhost and to loopback addresses, not to %q; a web server before it has to send \"Host: localhost\"", r.Host)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return http.StatusMethodNotAllowed, "this page is for reading: GET or HEAD"
	case r.ContentLength != 0:
		return http.StatusBadRequest, "requests have no body here"
	case foreign(r):
		return http.StatusForbidden, "another site's page asked for this"
	case g.key != "" && !g.opens(r):
		return http.StatusUnauthorized, "whoever is on this machine can connect, so the page has a key: give any user name, and as password what is in " + g.where
	}
	return 0, ""
}

// local says whether a Host is a name that leads nowhere else.
func local(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

// foreign says whether another site's page asks, as a browser tells: links to us
// are fine, parts of others' pages are not.
func foreign(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return false
	}
	return r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

// opens says whether a request has the key.
func (g *guard) opens(r *http.Request) bool {
	_, password, ok := r.BasicAuth()
	got, want := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(g.key))
	return ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
