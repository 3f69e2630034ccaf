package tuntap

import (
	"encoding/binary"
	"errors"
)

// uWSGI's stream frame: one byte that nobody reads, the payload's length in
// two bytes, little-endian, one byte for the kind, then the payload.
const (
	frameHeader  = 4
	framePayload = 8192 // the most that a frame may carry
)

// The kinds of frames. uWSGI knows the first two and takes every other value
// for data; so do we, except from the emperor.
const (
	kindData    = 0
	kindRules   = 1
	kindPart    = 0xF0 // a part of a hand-over that is longer than one frame
	kindHand    = 0xF1 // the (rest of the) hand-over
	kindAnswer  = 0xF2 // the router's answer: empty is yes, else why not
	kindGoodbye = 0xF3 // the emperor ends the peer
	kindOwn     = 0xF4 // on a life line: the (rest of the) rules that the device has from now on
)

// hello is what a uWSGI device with tuntap-use-credentials sends before its
// first frame, without a header.
const hello = "uwsgi-tuntap"

var errFrameTooLong = errors.New("frame longer than 8192 bytes")

// putHeader writes a frame's header into the first four bytes of b.
func putHeader(b []byte, kind byte, payload int) {
	b[0] = 0
	binary.LittleEndian.PutUint16(b[1:], uint16(payload))
	b[3] = kind
}

// frameReader cuts a stream into frames, however it was chunked. The zero
// value is at the start of a stream.
type frameReader struct {
	tail    []byte // begin of a frame whose end is still to come; allocated when first needed
	started bool   // something was cut already: no hello any more
	spent   bool   // tail was handed out and is to be forgotten
}

// partial reports whether the stream stands within a frame.
func (f *frameReader) partial() bool { return len(f.tail) > 0 && !f.spent }

// next cuts the next frame, header included, from b and returns what is left
// of b. The frame is nil when b ends before it does; it is valid and may be
// written to until the next call. After an error the stream is unusable.
func (f *frameReader) next(b []byte) (frame, rest []byte, err error) {
	if f.spent {
		f.tail, f.spent = f.tail[:0], false
	}
	if len(f.tail) == 0 {
		n, err := f.length(b)
		if err != nil {
			return nil, nil, err
		}
		if n > 0 && len(b) >= n {
			f.started = true
			return b[:n:n], b[n:], nil
		}
		f.keep(b)
		return nil, nil, nil
	}
	if missing := frameHeader - len(f.tail); missing > 0 {
		k := min(missing, len(b))
		f.keep(b[:k])
		b = b[k:]
	}
	n, err := f.length(f.tail)
	if err != nil || n == 0 {
		return nil, nil, err
	}
	k := min(n-len(f.tail), len(b))
	f.keep(b[:k])
	if len(f.tail) < n {
		return nil, nil, nil
	}
	f.started, f.spent = true, true
	return f.tail[:n:n], b[k:], nil
}

// length returns the whole length of the frame that b begins with, 0 while
// its header is not complete.
func (f *frameReader) length(b []byte) (int, error) {
	if len(b) < frameHeader {
		return 0, nil
	}
	if !f.started && string(b[:frameHeader]) == hello[:frameHeader] {
		return len(hello), nil
	}
	n := int(binary.LittleEndian.Uint16(b[1:]))
	if n > framePayload {
		return 0, errFrameTooLong
	}
	return frameHeader + n, nil
}

func (f *frameReader) keep(b []byte) {
	if f.tail == nil && len(b) > 0 {
		f.tail = make([]byte, 0, frameHeader+framePayload)
	}
	f.tail = append(f.tail, b...)
}

// isHello reports whether a frame that next returned is uWSGI's greeting.
func isHello(frame []byte) bool { return len(frame) == len(hello) && string(frame) == hello }
