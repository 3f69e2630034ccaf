package hostile

import (
	"bufio"
	"errors"
	"os"
	"strings"
)

// addresses looks for one that is no zero.
func addresses(path string) Finding {
	f, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return absent("%v", err)
		}
		return contained("%v", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	n := 0
	for lines.Scan() && n < 1000 {
		n++
		if address, _, _ := strings.Cut(strings.TrimSpace(lines.Text()), " "); strings.Trim(address, "0-") != "" {
			return escaped("%s", lines.Text())
		}
	}
	return contained("all are 0")
}
