package emperor

import (
	"context"
	"errors"
	"net/http"
	"reflect"

	"fiefdom/vassal"
)

// ReloadRules reads the emperor's ini again and puts its chains in force; unsaved
// changes of them are gone. Vassals, connections and all else that the file says
// go on as they were. It tells whether the file's rules are others than before.
func (e *Emperor) ReloadRules() (changed bool, err error) {
	e.ruling.Lock()
	defer e.ruling.Unlock()
	if e.ReadRules == nil {
		return false, errors.New("the emperor is being started; try again")
	}
	fresh, err := e.ReadRules()
	if err != nil {
		return false, err
	}
	err = e.inLoop(func() error {
		var errs []error
		for i := range e.Networks {
			n := &e.Networks[i]
			before, now := e.inForce(n), fresh[n.Device]
			if _, same := vassal.Unedited(n.Rules).Over(now.Rules); !same {
				changed = true
				e.Log.Info("chains changed", "network", n.Device, "rules", len(now.Rules))
			}
			e.reread(ruleOwner{Network: n.Device}, now.Rules, false)
			n.Written = now
			if !reflect.DeepEqual(before, e.inForce(n)) {
				errs = append(errs, e.applyChains(n))
			}
		}
		return errors.Join(errs...)
	})
	return changed, err
}

// apiReloadRules answers with all chains, as they are then.
func (e *Emperor) apiReloadRules(w http.ResponseWriter, r *http.Request) {
	if !rootOnly(w, r) {
		return
	}
	_, err := e.ReloadRules()
	var all []RuleChain
	if err == nil {
		all, err = e.listRules(r.Context(), "", "")
	}
	if err != nil {
		refuseRules(w, err)
		return
	}
	answer(w, all)
}

// ReloadRules has the emperor read the chains of his ini again, and returns all
// that are in force then.
func (c *Client) ReloadRules(ctx context.Context) ([]RuleChain, error) {
	var all []RuleChain
	return all, c.ask(ctx, http.MethodPost, "/firewall/reload", &all)
}
