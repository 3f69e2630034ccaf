package seccomp

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
)

// Refused are the numbers of the system calls that the filter of a wish answers with
// EPERM when all their arguments are 0, as somebody asks who tries them all.
func Refused(w Wish) (map[string]uint32, error) {
	all, err := rules(w)
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	machine, err := bpf.NewVM(program(all))
	if err != nil {
		return nil, fmt.Errorf("seccomp filter: %w", err)
	}
	refused := map[string]uint32{}
	const arguments = 6
	for _, c := range numbers {
		data := make([]byte, offsetArgs+arguments*argSize) // the machine reads it in network order
		binary.BigEndian.PutUint32(data[offsetNumber:], c.nr)
		binary.BigEndian.PutUint32(data[offsetArch:], auditArch)
		answer, err := machine.Run(data)
		if err != nil {
			return nil, fmt.Errorf("seccomp filter: %s: %w", c.name, err)
		}
		if uint32(answer) == deny {
			refused[c.name] = c.nr
		}
	}
	return refused, nil
}
