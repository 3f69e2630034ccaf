package dump

import (
	"errors"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestWhole(t *testing.T) {
	other := errors.New("no")
	for name, tt := range map[string]struct {
		errs []error // of the first calls
		want int
		err  error
	}{
		"at once":         {nil, 0, nil},
		"after a change":  {[]error{netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted}, 2, nil},
		"always changing": {slices.Repeat([]error{netlink.ErrDumpInterrupted}, 1000), tries - 1, nil},
		"fails":           {[]error{netlink.ErrDumpInterrupted, other}, 1, other},
	} {
		t.Run(name, func(t *testing.T) {
			n := -1
			got, err := Whole(func() ([]int, error) {
				if n++; n < len(tt.errs) {
					return []int{n}, tt.errs[n]
				}
				return []int{n}, nil
			})
			if !errors.Is(err, tt.err) || len(got) != 1 || got[0] != tt.want {
				t.Errorf("%v, %v; want %d, %v", got, err, tt.want, tt.err)
			}
		})
	}
}
