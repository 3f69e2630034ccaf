package tuntap

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// cutAll feeds a stream in the given chunks and returns the frames.
func cutAll(stream []byte, size func() int) (frames [][]byte, f frameReader, err error) {
	for len(stream) > 0 {
		n := min(max(1, size()), len(stream))
		chunk := bytes.Clone(stream[:n])
		stream = stream[n:]
		for len(chunk) > 0 {
			var frame []byte
			if frame, chunk, err = f.next(chunk); err != nil {
				return frames, f, err
			}
			if frame == nil {
				break
			}
			frames = append(frames, bytes.Clone(frame))
		}
	}
	return frames, f, nil
}

func TestFramesSurviveAnyChunking(t *testing.T) {
	var stream []byte
	var want [][]byte
	stream = append(stream, hello...)
	want = append(want, []byte(hello))
	for i, size := range []int{0, 1, 20, 1500, 8192, 0, 3} {
		frame := framed(byte(i), bytes.Repeat([]byte{byte(i)}, size))
		stream, want = append(stream, frame...), append(want, frame)
	}
	for _, size := range []int{1, 2, 3, 4, 5, 7, 100, 4096, 1 << 16} {
		got, f, err := cutAll(stream, func() int { return size })
		if err != nil || f.partial() {
			t.Fatalf("chunks of %d: error %v, partial %v", size, err, f.partial())
		}
		if !equalFrames(got, want) {
			t.Errorf("chunks of %d: %d frames; want %d", size, len(got), len(want))
		}
	}
}

func equalFrames(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

func TestFrameTooLong(t *testing.T) {
	for name, head := range map[string][]byte{
		"one too many":          {0, 0x01, 0x20, 0},
		"the longest":           {0, 0xff, 0xff, 1},
		"hello after the start": append(framed(0, nil), hello...),
	} {
		for _, size := range []int{1, 3, 4, 100} {
			if _, _, err := cutAll(head, func() int { return size }); !errors.Is(err, errFrameTooLong) {
				t.Errorf("%s in chunks of %d: error %v", name, size, err)
			}
		}
	}
}

func TestHalfFrameIsPartial(t *testing.T) {
	frame := framed(0, []byte("payload"))
	for n := 1; n < len(frame); n++ {
		if _, f, err := cutAll(frame[:n], func() int { return 1 << 16 }); err != nil || !f.partial() {
			t.Errorf("%d bytes of a frame: partial %v, error %v", n, f.partial(), err)
		}
	}
	if _, f, _ := cutAll(frame, func() int { return 3 }); f.partial() {
		t.Error("a whole frame counts as partial")
	}
}

func TestCuttingAllocatesNothing(t *testing.T) {
	stream := bytes.Repeat(framed(0, make([]byte, 100)), 10)
	var f frameReader
	f.keep(stream[:1])
	f.tail = f.tail[:0]
	allocs := testing.AllocsPerRun(100, func() {
		for _, b := range [][]byte{stream[:333], stream[333:]} {
			for len(b) > 0 {
				frame, rest, err := f.next(b)
				if frame == nil || err != nil {
					break
				}
				b = rest
			}
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte(hello+"\x00\x02\x00\x00ab\x00\x00\x00\x01"), uint64(1))
	f.Add([]byte{0, 0xff, 0xff, 0}, uint64(2))
	f.Add(framed(0, make([]byte, 8192)), uint64(3))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, seed))
		want, _, wantErr := cutAll(stream, func() int { return 1 << 20 })
		got, r, gotErr := cutAll(stream, func() int { return rnd.IntN(40) })
		if (wantErr == nil) != (gotErr == nil) || !equalFrames(got, want) {
			t.Fatalf("chunking matters: %d frames, %v; want %d, %v", len(got), gotErr, len(want), wantErr)
		}
		if cap(r.tail) > frameHeader+framePayload {
			t.Fatalf("%d bytes are kept of one frame", cap(r.tail))
		}
	})
}
