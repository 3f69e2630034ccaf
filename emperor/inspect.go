package emperor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"fiefdom/vassal"
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
	if e.kernels(w, s.Name) {
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

// kernels answers for a vassal whose packets pass no router, since all of its
// devices are in bridges of the kernel's: it says what to look with.
func (e *Emperor) kernels(w http.ResponseWriter, name string) bool {
	var ends []vassal.HostEnd
	others := false
	e.jails.Range(func(_, j any) bool {
		if jail := j.(*vassal.Jail); jail.Name == name {
			ends = append(ends, jail.HostEnds()...)
			others = others || len(jail.Links()) > len(jail.HostEnds())
		}
		return true
	})
	if len(ends) == 0 || others {
		return false
	}
	http.Error(w, fmt.Sprintf("the kernel moves the packets of %s (bridge %s), and no router: look with tcpdump -ni %s, and with nft list table bridge fiefdom-%s for what is dropped",
		name, ends[0].Bridge, ends[0].Device, e.Config.Instance), http.StatusConflict)
	return true
}

// apiDrops answers with the drops that happened to a vassal's packets.
func (e *Emperor) apiDrops(w http.ResponseWriter, r *http.Request) {
	s, ok := e.find(w, r)
	if !ok {
		return
	}
	if e.kernels(w, s.Name) {
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

// apiCapture copies what the router says of a vassal's packets to the client,
// until either of them has enough, or the vassal's device is gone. A client who
// does not read costs the router no time: it counts what it could not tell.
func (e *Emperor) apiCapture(w http.ResponseWriter, r *http.Request) {
	s, ok := e.find(w, r)
	if !ok {
		return
	}
	if e.kernels(w, s.Name) {
		return
	}
	if e.Capture == nil {
		http.Error(w, noNetwork, http.StatusConflict)
		return
	}
	conn, err := e.Capture(r.Context(), s.Name, r.URL.Query())
	if err != nil {
		told(w, func() (any, error) { return nil, err })
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(r.Context(), func() { _ = conn.Close() })
	defer stop()
	w.Header().Set("Content-Type", "application/octet-stream")
	to := http.NewResponseController(w)
	if to.Flush() != nil {
		return
	}
	b := make([]byte, 64<<10)
	for {
		n, err := conn.Read(b)
		if err != nil || to.SetWriteDeadline(time.Now().Add(apiTimeout)) != nil {
			return
		}
		if _, err := w.Write(b[:n]); err != nil || to.Flush() != nil {
			return
		}
	}
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

// Capture asks for the packets of a vassal, as the router tells of them, until
// ctx is done. The caller closes what is returned.
func (c *Client) Capture(ctx context.Context, name string, query url.Values) (io.ReadCloser, error) {
	return c.open(ctx, http.MethodGet, "/vassals/"+url.PathEscape(name)+"/capture?"+query.Encode())
}
