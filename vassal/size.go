package vassal

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// sizes are the units of a size, the largest first.
var sizes = []struct {
	unit  string
	bytes int64
}{{"T", 1 << 40}, {"G", 1 << 30}, {"M", 1 << 20}, {"K", 1 << 10}}

// parseSize reads a number of bytes: plain, or with K, M, G or T, in steps of 1024.
func parseSize(s string) (int64, error) {
	number, factor := strings.TrimSuffix(strings.ToUpper(s), "B"), int64(1)
	for _, u := range sizes {
		if n, ok := strings.CutSuffix(number, u.unit); ok {
			number, factor = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("%q is no size; want bytes (10485760) or a unit (10M)", s)
	}
	return n * factor, nil
}

// Size writes bytes as an ini does: with the largest unit that leaves a whole
// number.
func Size(n int64) string {
	for _, u := range sizes {
		if n >= u.bytes && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.unit
		}
	}
	return strconv.FormatInt(n, 10)
}
