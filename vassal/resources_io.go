package vassal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// IOLimit is what a vassal may read and write of one disk in a second, at most.
// 0 is no limit.
type IOLimit struct {
	Device        string `json:"device"` // MAJOR:MINOR
	Name          string `json:"name"`   // as the ini has it
	ReadBytes     uint64 `json:"read_bytes,omitempty"`
	WriteBytes    uint64 `json:"write_bytes,omitempty"`
	ReadRequests  uint64 `json:"read_requests,omitempty"`
	WriteRequests uint64 `json:"write_requests,omitempty"`
}

// rates are the words of io.max (cgroup v2) in its order.
func (l *IOLimit) rates() []rate {
	return []rate{{"rbps", &l.ReadBytes}, {"wbps", &l.WriteBytes}, {"riops", &l.ReadRequests}, {"wiops", &l.WriteRequests}}
}

type rate struct {
	word string
	n    *uint64
}

// String is the limit as the ini has it.
func (l IOLimit) String() string {
	words := []string{l.Name}
	for _, r := range l.rates() {
		if *r.n > 0 {
			n := strconv.FormatUint(*r.n, 10)
			if strings.HasSuffix(r.word, "bps") {
				n = Size(int64(*r.n))
			}
			words = append(words, r.word+"="+n)
		}
	}
	return strings.Join(words, " ")
}

// within says whether l allows no more than most in what it says.
func (l *IOLimit) within(most *IOLimit) bool {
	for i, r := range l.rates() {
		if bound := *most.rates()[i].n; bound > 0 && *r.n > bound {
			return false
		}
	}
	return true
}

// over is l with what base says besides.
func (l IOLimit) over(base *IOLimit) IOLimit {
	for i, r := range l.rates() {
		if *r.n == 0 {
			*r.n = *base.rates()[i].n
		}
	}
	return l
}

// lower is l with no rate above those of most.
func (l IOLimit) lower(most *IOLimit) IOLimit {
	for i, r := range l.rates() {
		if bound := *most.rates()[i].n; bound > 0 && (*r.n == 0 || *r.n > bound) {
			*r.n = bound
		}
	}
	return l
}

func setIO(r *Resources, value string) error {
	words := strings.Fields(value)
	if len(words) < 2 {
		return errors.New("want DEVICE and at least one of rbps=BYTES wbps=BYTES riops=N wiops=N, such as /dev/sda wbps=10M")
	}
	l := IOLimit{Name: words[0]}
	for _, word := range words[1:] {
		key, number, _ := strings.Cut(word, "=")
		all := l.rates()
		i := slices.IndexFunc(all, func(r rate) bool { return r.word == key })
		n, err := parseSize(number)
		if i < 0 || err != nil || n == 0 {
			return fmt.Errorf("%q: want rbps=BYTES, wbps=BYTES, riops=N or wiops=N, more than 0", word)
		}
		*all[i].n = uint64(n)
	}
	var err error
	if l.Device, err = diskOf(l.Name); err != nil {
		return err
	}
	r.IO = append(slices.DeleteFunc(r.IO, func(o IOLimit) bool { return o.Device == l.Device }), l)
	return nil
}

// diskOf is the number of a block device, of the whole disk if it is a part of
// one: the kernel limits disks.
func diskOf(name string) (string, error) {
	var major, minor uint32
	if n, err := fmt.Sscanf(name, "%d:%d", &major, &minor); n != 2 || err != nil {
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			return "", fmt.Errorf("device %s: %w", name, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			return "", fmt.Errorf("%s is no block device; lsblk lists them", name)
		}
		major, minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
	number := fmt.Sprintf("%d:%d", major, minor)
	sys := "/sys/dev/block/" + number
	if _, err := os.Stat(sys); err != nil {
		return "", fmt.Errorf("there is no block device %s; lsblk lists them", number)
	}
	if _, err := os.Stat(sys + "/partition"); err != nil {
		return number, nil
	}
	at, err := filepath.EvalSymlinks(sys)
	if err != nil {
		return "", err
	}
	disk, err := os.ReadFile(filepath.Join(filepath.Dir(at), "dev"))
	return strings.TrimSpace(string(disk)), err
}

// checkDevice says what no parser can have given.
func (l *IOLimit) checkDevice() error {
	var major, minor uint32
	if n, err := fmt.Sscanf(l.Device, "%d:%d", &major, &minor); n != 2 || err != nil || l.Device != fmt.Sprintf("%d:%d", major, minor) || len(l.Name) > maxPath {
		return fmt.Errorf("%s: %.100q is no number of a device", LimitIO, l.Device)
	}
	return nil
}
