package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	nsh "github.com/vishvananda/netns"

	"fiefdom/internal/netns"
)

// downloadSize is large enough that a router can be killed under it.
const downloadSize = 96 << 20 // bytes

// internet is what the demo's apps find outside: a web server that tells its
// callers under which address it sees them and has a file to download, and a
// socket that takes datagrams.
type internet struct {
	ns     nsh.NsHandle
	server *http.Server
	mail   net.PacketConn
}

const mailPort = "9"

func openInternet(ns nsh.NsHandle) (*internet, error) {
	i := &internet{ns: ns}
	mux := http.NewServeMux()
	mux.HandleFunc("/whoami", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		_, _ = io.WriteString(w, host)
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, file()) // a caller that goes away sees to it himself
	})
	i.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	err := netns.Do(ns, func() error {
		l, err := net.Listen("tcp4", ":80")
		if err != nil {
			return err
		}
		go func() { _ = i.server.Serve(l) }() // until close
		i.mail, err = net.ListenPacket("udp4", ":"+mailPort)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the internet: %w", err), i.server.Close())
	}
	return i, nil
}

func (i *internet) close() {
	_ = errors.Join(i.server.Close(), i.mail.Close(), i.ns.Close())
}

// file is the file for download: the same bytes each time.
func file() io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte([]byte("the file for download of a demo."))), downloadSize)
}

// fileHash is the hash of the file, made without any network.
func fileHash() (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, file())
	return hex.EncodeToString(h.Sum(nil)), err
}

// letters reads the datagrams that come until one is last; who are their
// senders, and how many came before that one.
func (i *internet) letters(last string) (before int, sender string, err error) {
	buf := make([]byte, 64)
	if err := i.mail.SetReadDeadline(time.Now().Add(demoPatience)); err != nil {
		return 0, "", err
	}
	for {
		n, from, err := i.mail.ReadFrom(buf)
		if err != nil {
			return before, "", fmt.Errorf("wait for a datagram: %w", err)
		}
		if string(buf[:n]) == last {
			host, _, _ := net.SplitHostPort(from.String())
			return before, host, nil
		}
		before++
	}
}
