package firewall

// Chain is a compiled, immutable list of rules: the first that matches
// decides. It counts the hits of each rule and is safe for concurrent use.
type Chain struct{}

// NewChain compiles rules, in their order.
func NewChain(rules []Rule) *Chain { return &Chain{} }

// Verdict returns the action of the first rule that matches f and its index
// in the slice given to NewChain; Allow and -1 when none does. A nil Chain
// allows everything. It does not allocate.
func (c *Chain) Verdict(f *Flow) (Action, int) { return Allow, -1 }

// Rules returns the rules of the chain, in order. The caller must not change them.
func (c *Chain) Rules() []Rule { return nil }

// Hits returns how often rule i decided.
func (c *Chain) Hits(i int) uint64 { return 0 }

// ParseRule reads "ACTION [SRC DST [PROTO [PORTS]]]".
func ParseRule(s string) (Rule, error) { return Rule{}, nil }

// ParseDeviceRule reads uWSGI's "in|out SRC DST ACTION [TARGET]".
func ParseDeviceRule(s string) (Direction, Rule, error) { return Out, Rule{}, nil }
