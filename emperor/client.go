package emperor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrNotFound says that there is no such vassal, or no such emperor.
var ErrNotFound = errors.New("not found")

// Client talks to a running emperor.
type Client struct{ http http.Client }

// NewClient talks to the emperor whose runtime directory is given.
func NewClient(runtime string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(runtime, APISocket))
	}
	return &Client{http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// List asks for all vassals that the caller may see.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	var all []Status
	return all, c.ask(ctx, http.MethodGet, "/vassals", &all)
}

// ListJSON is List, as the emperor says it.
func (c *Client) ListJSON(ctx context.Context) (json.RawMessage, error) {
	body, err := c.open(ctx, http.MethodGet, "/vassals")
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// Self asks for the emperor itself.
func (c *Client) Self(ctx context.Context) (Self, error) {
	var s Self
	return s, c.ask(ctx, http.MethodGet, "/emperor", &s)
}

// Get asks for one vassal.
func (c *Client) Get(ctx context.Context, name string) (Status, error) {
	var s Status
	return s, c.ask(ctx, http.MethodGet, "/vassals/"+url.PathEscape(name), &s)
}

// Do tells one vassal to start, stop, restart or reload, waits until it is
// done, and returns what became of it.
func (c *Client) Do(ctx context.Context, name, word string) (Status, error) {
	var s Status
	return s, c.ask(ctx, http.MethodPost, "/vassals/"+url.PathEscape(name)+"/"+word, &s)
}

func (c *Client) ask(ctx context.Context, method, path string, into any) error {
	body, err := c.open(ctx, method, path)
	if err != nil {
		return err
	}
	defer body.Close()
	return json.NewDecoder(body).Decode(into)
}

// notHeard is why an emperor that runs may hang up.
var notHeard = fmt.Sprintf("it hears nobody who is in a jail, and has %d connections for each user", callerConns)

// atDial says that an error came before there was a connection.
func atDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (c *Client) open(ctx context.Context, method, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://emperor"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
			err = fmt.Errorf("it does not run (%w): %w", err, ErrNotFound)
		case errors.Is(err, syscall.ECONNRESET):
			err = fmt.Errorf("it does not run any more, or %s (%w): %w", notHeard, err, ErrNotFound)
		case ctx.Err() == nil && !atDial(err): // net/http has several words for it
			err = fmt.Errorf("it hung up: %s (%w)", notHeard, err)
		}
		return nil, fmt.Errorf("ask the emperor: %w", err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	message := strings.TrimSpace(string(text))
	if resp.StatusCode == http.StatusNotFound {
		return nil, notFound(message)
	}
	if resp.StatusCode == http.StatusBadRequest {
		return nil, badQuery(message)
	}
	return nil, errors.New(message)
}

// badQuery is what the emperor says of a question that makes no sense.
type badQuery string

func (q badQuery) Error() string { return strings.TrimPrefix(string(q), ErrBadQuery.Error()+": ") }

func (badQuery) Is(target error) bool { return target == ErrBadQuery }
