package tuntap

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"fiefdom/firewall"
)

// Captured is a packet that was looked at.
type Captured struct {
	Time      time.Time
	Direction firewall.Direction // in: the packet was for the vassal
	Verdict   string             // allow, deny FILE:LINE, isolate, …
	Length    int                // of the whole packet, which the kernel may still cut
	Data      []byte             // of it, from the IP header; valid until the next read
	Lost      uint64             // packets so far, for want of a reader; where it is set there is no packet
}

// A record is a header, the verdict and the data. The header is, in little-endian:
// the lengths of the verdict (2 bytes) and the data (4), the packet's (4), the
// direction (1), one that is zero (1), lost (8), and the time in nanoseconds (8).
const (
	recordHeader = 28
	recordLimit  = recordHeader + 1<<16 // without the data
)

func appendRecord(b []byte, c *Captured, data []byte) []byte {
	le := binary.LittleEndian
	verdict := c.Verdict[:min(len(c.Verdict), 1<<12)]
	b = le.AppendUint16(b, uint16(len(verdict)))
	b = le.AppendUint32(b, uint32(len(data)))
	b = le.AppendUint32(b, uint32(c.Length))
	b = append(b, byte(c.Direction), 0)
	b = le.AppendUint64(b, c.Lost)
	var at int64
	if !c.Time.IsZero() {
		at = c.Time.UnixNano()
	}
	b = le.AppendUint64(b, uint64(at))
	return append(append(b, verdict...), data...)
}

// ReadCapture reads the next record of a capture into c, with c.Data in the
// buffer that it had. io.EOF is the capture's end.
func ReadCapture(r io.Reader, c *Captured) error {
	var h [recordHeader]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return err
	}
	le := binary.LittleEndian
	words, size := int(le.Uint16(h[0:])), int(le.Uint32(h[2:]))
	c.Length, c.Direction, c.Lost = int(le.Uint32(h[6:])), firewall.Direction(h[10]), le.Uint64(h[12:])
	if size > 1<<16 || words > 1<<12 || c.Length < size || c.Direction > firewall.In {
		return fmt.Errorf("a record of %d bytes, of a packet of %d: that is no capture", size, c.Length)
	}
	c.Time = time.Unix(0, int64(le.Uint64(h[20:])))
	b := c.Data[:0]
	b = append(b, make([]byte, words+size)...)
	if _, err := io.ReadFull(r, b); err != nil {
		return io.ErrUnexpectedEOF
	}
	c.Verdict = string(b[:words])
	c.Data = b[:copy(b, b[words:])]
	return nil
}
