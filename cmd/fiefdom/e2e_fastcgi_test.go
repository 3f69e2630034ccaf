package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

// Kinds of records of FastCGI 1.0.
const (
	fcgiBegin  = 1
	fcgiEnd    = 3
	fcgiParams = 4
	fcgiStdin  = 5
	fcgiStdout = 6
	fcgiStderr = 7
)

// fastCGI asks a FastCGI server, from the host, to run a script.
func (r *realm) fastCGI(addr netip.Addr, port, script string) (string, error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	c, err := r.dial(ctx, addr, port)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	var params strings.Builder
	for _, kv := range [][2]string{{"SCRIPT_FILENAME", script}, {"REQUEST_METHOD", "GET"}, {"SERVER_PROTOCOL", "HTTP/1.1"}} {
		params.Write([]byte{byte(len(kv[0])), byte(len(kv[1]))})
		params.WriteString(kv[0] + kv[1])
	}
	record := func(kind byte, content string) string {
		return string(binary.BigEndian.AppendUint16([]byte{1, kind, 0, 1}, uint16(len(content)))) + "\x00\x00" + content
	}
	const responder = "\x00\x01\x00\x00\x00\x00\x00\x00"
	if _, err := io.WriteString(c, record(fcgiBegin, responder)+record(fcgiParams, params.String())+record(fcgiParams, "")+record(fcgiStdin, "")); err != nil {
		return "", err
	}
	return readFastCGI(c)
}

// readFastCGI reads an answer up to its end.
func readFastCGI(c io.Reader) (string, error) {
	var answer strings.Builder
	var errs []error
	for {
		head := make([]byte, 8)
		if _, err := io.ReadFull(c, head); err != nil {
			return answer.String(), errors.Join(append(errs, err)...)
		}
		content := make([]byte, int(binary.BigEndian.Uint16(head[4:]))+int(head[6]))
		if _, err := io.ReadFull(c, content); err != nil {
			return answer.String(), errors.Join(append(errs, err)...)
		}
		content = content[:len(content)-int(head[6])]
		switch head[1] {
		case fcgiStdout:
			answer.Write(content)
		case fcgiStderr:
			errs = append(errs, fmt.Errorf("it says %q", content))
		case fcgiEnd:
			return answer.String(), errors.Join(errs...)
		}
	}
}
