package ini

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// httpTime is what one http:// or resolve may take, as in uWSGI.
const httpTime = 4 * time.Second

// Networked lets a file use the network by http:// and resolve, as its
// commands can.
func Networked(o Options) Options {
	o.HTTP = readHTTP
	o.Resolve = resolve
	return o
}

// Trusted lets a file use what belongs to who runs the program: standard
// input, inherited descriptors, the network, and options of the environment.
// It is for files of the caller's own; a tenant's ini gets none of it.
func Trusted(o Options) Options {
	o.Stdin = os.Stdin
	o.FD = readFD
	o.Environ = os.Environ()
	return Networked(o)
}

// readFD reads an inherited descriptor to its end, which it must have.
func readFD(fd int) ([]byte, error) {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), fmt.Sprintf("fd://%d", fd))
	defer f.Close()
	return readAll(f)
}

// readHTTP gets a document without TLS, proxies or redirections.
func readHTTP(url string) ([]byte, error) {
	client := &http.Client{
		Timeout:       httpTime,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("the server says %s", answer.Status)
	}
	return readAll(answer.Body)
}

// resolve is the first IPv4 address of a host.
func resolve(host string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), httpTime)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip4", host)
	if err != nil {
		return "", err
	}
	if len(ips) == 0 {
		return "", errors.New("it has no IPv4 address")
	}
	return ips[0].String(), nil
}
