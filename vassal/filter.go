package vassal

import (
	"fmt"
	"strings"
	"sync"

	"fiefdom/internal/seccomp"
)

// filters are the compiled filters of system calls, by what they are for.
var filters sync.Map

// filtered is the plan with the filter of its app, which is no part of what the
// vassal is.
func (plan *Plan) filtered() (*Plan, error) {
	if plan.Confined == nil {
		return plan, nil
	}
	k := *plan.Confined
	key := fmt.Sprint(k.strict(), k.Counted, strings.Join(plan.Caps, " "))
	filter, ok := filters.Load(key)
	if !ok {
		compiled, err := seccomp.Compile(seccomp.Wish{Caps: plan.Caps, Strict: k.strict(), Counted: k.Counted})
		if err != nil {
			return nil, err
		}
		filter, _ = filters.LoadOrStore(key, compiled)
	}
	k.Filter = filter.([]byte)
	with := *plan
	with.Confined = &k
	return &with, nil
}
