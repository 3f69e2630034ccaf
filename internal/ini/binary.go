package ini

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// elfSection is what section://NAME reads: a section of a program.
func elfSection(program, name string) ([]byte, error) {
	f, err := os.Open(program)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sections, err := elf.NewFile(f)
	if err != nil {
		return nil, err
	}
	section := sections.Section(name)
	if section == nil {
		return nil, fmt.Errorf("%s has no section %q", program, name)
	}
	return readAll(section.Open())
}

// blob is what data://N reads. Blobs are appended to a program, each with its
// size in eight bytes behind it; 0 is the last one.
func blob(program string, slot int64) ([]byte, error) {
	const maxSlot = 1000
	if slot < 0 || slot > maxSlot {
		return nil, fmt.Errorf("there is no blob %d", slot)
	}
	f, err := os.Open(program)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	for ; ; slot-- {
		var size [8]byte
		if _, err := f.ReadAt(size[:], end-int64(len(size))); err != nil {
			return nil, errors.New("there are not so many blobs")
		}
		end -= int64(len(size))
		n := binary.NativeEndian.Uint64(size[:])
		if n == 0 || n > uint64(end) {
			return nil, fmt.Errorf("%s ends without such a blob; append it, and its size in eight bytes", program)
		}
		end -= int64(n)
		if slot == 0 {
			return readAll(io.NewSectionReader(f, end, int64(n)))
		}
	}
}
