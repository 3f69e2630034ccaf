package emperor

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// Sees says whether an asker may see what belongs to a vassal; to nobody, "":
// to the emperor himself.
type Sees func(vassal string) bool

// ErrBadQuery says that a question makes no sense, whoever asks it.
var ErrBadQuery = errors.New("bad question")

// sees is what the asker of a request may see. Root and the emperor's own user
// may see all, others their own vassals.
func (e *Emperor) sees(r *http.Request) Sees {
	own := map[string]bool{}
	for _, s := range e.statuses(r.Context()) {
		own[s.Name] = mayTouch(r, s)
	}
	nobodys := mayTouch(r, Status{owner: owner{uid: 0}})
	return func(vassal string) bool { return own[vassal] || nobodys }
}

// apiExplain answers what would become of a packet.
func (e *Emperor) apiExplain(w http.ResponseWriter, r *http.Request) {
	s, ok := e.find(w, r)
	if !ok {
		return
	}
	if e.Explain == nil {
		http.Error(w, noNetwork, http.StatusConflict)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), apiTimeout)
	defer cancel()
	told(w, func() (any, error) { return e.Explain(ctx, s.Name, r.URL.Query(), e.sees(r)) })
}

const noNetwork = "this emperor has no network, so no packet passes a router of his"

// apiDrops answers with the drops that happened to a vassal's packets.
func (e *Emperor) apiDrops(w http.ResponseWriter, r *http.Request) {
	s, ok := e.find(w, r)
	if !ok {
		return
	}
	if e.Drops == nil {
		http.Error(w, noNetwork, http.StatusConflict)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), apiTimeout)
	defer cancel()
	told(w, func() (any, error) { return e.Drops(ctx, s.Name) })
}

// told answers with what ask says.
func told(w http.ResponseWriter, ask func() (any, error)) {
	v, err := ask()
	switch {
	case errors.Is(err, ErrBadQuery):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case err != nil:
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		answer(w, v)
	}
}

// Explain asks what would become of a packet of a vassal, or to it. The query
// and the answer are the router's.
func (c *Client) Explain(ctx context.Context, name string, query url.Values, into any) error {
	return c.ask(ctx, http.MethodGet, "/vassals/"+url.PathEscape(name)+"/explain?"+query.Encode(), into)
}

// Drops asks for the drops that happened to a vassal's packets, by peer.
func (c *Client) Drops(ctx context.Context, name string, into any) error {
	return c.ask(ctx, http.MethodGet, "/vassals/"+url.PathEscape(name)+"/drops", into)
}
