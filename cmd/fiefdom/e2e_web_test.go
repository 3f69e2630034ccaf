package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"fiefdom/emperor"
	"fiefdom/internal/netns"
	"fiefdom/internal/nettest"
)

const webSocket = "/run/t/web.sock"

// webPage is where a browser finds the page of a socket, as through ssh -L.
func (r *realm) webPage() string {
	r.t.Helper()
	t, ok := r.t.(*testing.T)
	if !ok {
		r.t.Fatal("a browser is for tests")
	}
	return "http://" + tunnel(t, func() (net.Conn, error) { return net.Dial("unix", r.Path(webSocket)) }) + "/"
}

// look asks the page's socket, as a browser does.
func (r *realm) look(path string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", r.Path(webSocket))
	}}}
	resp, err := client.Get("http://localhost" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// rowOf is the expression of a vassal's row.
func rowOf(name string) string {
	return fmt.Sprintf("document.querySelector('tr[data-key=%q]')", name)
}

// A hoster looks at the page for a while, with a mouse and without one.
func TestWebPage(t *testing.T) {
	t.Parallel()
	b := newBrowser(t)
	r := newRealm(t, walledNetwork+"emperor-web = "+webSocket+"\n", map[string]string{
		"blog": agentIni,
		"shop": "[uwsgi]\ncommand = sh -c 'systemd-notify --ready \"STATUS=open, <b>3</b> carts\"; exec AGENT'\nready = notify\n",
		"sick": "[uwsgi]\ncommand = /bin/sh -c 'echo no database; exit 3'\n",
	})
	blog, shop := r.reach("blog"), r.reach("shop")
	home := r.webPage()
	b.do(chromedp.Navigate(home))
	b.shows("the vassals are there", rowOf("blog")+" !== null && "+rowOf("sick")+" !== null")
	for name, wants := range map[string][]string{"blog": {"running"}, "shop": {"running", "open, <b>3</b> carts"}, "sick": {"exit"}} {
		for _, want := range wants {
			b.shows(name+" says "+want, fmt.Sprintf("%s.innerText.includes(%q)", rowOf(name), want))
		}
	}

	// What changes is there without a reload: the same page, the same elements.
	b.do(chromedp.Evaluate[chromedp.Void]("window.kept = " + rowOf("blog") + "; document.querySelector('a[href^=\"vassal?name=blog\"]').focus()"))
	r.drop("late", agentIni)
	b.shows("a vassal that came later", rowOf("late")+"?.innerText.includes('running')")
	r.remove("late")
	b.shows("one that is gone", rowOf("late")+" === null")
	if !js[bool](b, "window.kept === "+rowOf("blog")+" && document.activeElement.innerText === 'blog'") {
		t.Error("the page was replaced under the reader, or took the focus from him")
	}

	// Keys: the filter, its end, and on to a vassal.
	b.press("/")
	b.do(chromedp.KeyEvent("SHO"))
	b.shows("only what the filter lets through", "document.querySelectorAll('#vassals tbody tr').length === 1 && "+rowOf("shop")+" !== null")
	b.shows("the filter in the address", "location.search === '?filter=SHO'")
	r.focus(b, "shop")
	b.do(chromedp.KeyEvent(kb.Enter))
	b.shows("the page of the vassal", "document.querySelector('h1')?.innerText.startsWith('shop')")
	b.do(chromedp.NavigateBack())
	b.shows("back with the filter", "document.querySelector('#filter input')?.value === 'SHO'")

	// One vassal: its log and its drops as they come.
	b.do(chromedp.Navigate(home + "vassal?name=blog"))
	b.shows("no drops yet", "document.body.innerText.includes('no packet of this vassal')")
	if out, err := r.sh(blog, "curl -s -m 0.3 http://203.0.113.9/"); err == nil {
		t.Fatalf("a rule that denies does nothing: %s", out)
	}
	for _, want := range []string{"deny any 203.0.113.0/24", "/run/t/emperor.ini:9", "203.0.113.9:80", "fiefdom explain blog out tcp 203.0.113.9:80"} {
		b.shows("the drop with "+want, fmt.Sprintf("document.querySelector('#drops')?.innerText.includes(%q)", want))
	}
	why := js[string](b, "document.querySelector('#drops td small code').innerText")
	if out := r.mustRun(strings.Fields(why)[1:]...); !strings.Contains(out, "DENY, by /run/t/emperor.ini:9") {
		t.Errorf("%s:\n%s", why, out)
	}
	r.mustSh(blog, `echo '<script>alert(1)</script> & more' >/proc/$PPID/fd/2`)
	b.shows("the line that was written", "document.querySelector('#log')?.innerText.includes('<script>alert(1)</script> & more')")
	b.shows("a plot of the traffic", "document.querySelector('.plots path.in')?.getAttribute('d').length > 5")
	b.shoot("vassal")

	// Paused, it stays; it says when the emperor is away, and goes on with him.
	b.click("#pause")
	b.shows("it is paused", "document.getElementById('live').innerText.startsWith('paused')")
	b.click("#pause")
	b.shows("it goes on", "document.getElementById('live').innerText.startsWith('live')")

	r.mustSh(shop, "ping -c 3 -i 0.2 10.9.0.1")
	b.do(chromedp.Navigate(home))
	b.shows("a small plot", rowOf("blog")+".querySelector('svg') !== null")
	if wide := js[float64](b, "document.documentElement.scrollWidth"); wide > 1280 {
		t.Errorf("the page is %v wide", wide)
	}
	b.shoot("overview")
	for _, at := range []string{"", "vassal?name=blog", "events"} {
		b.do(chromedp.EmulateViewport(360, 740), chromedp.Navigate(home+at))
		if wide := js[float64](b, "document.documentElement.scrollWidth"); wide > 360 {
			t.Errorf("on a phone %q is %v wide", at, wide)
		}
	}
	r.stop(syscall.SIGTERM)
	b.shows("the emperor is away", "document.getElementById('live').innerText.includes('does not answer') && document.body.classList.contains('away')")
	b.forgive("net::ERR")
}

// focus goes by the Tab key to a vassal's link.
func (r *realm) focus(b *browser, vassal string) {
	r.t.Helper()
	for range 40 {
		b.do(chromedp.KeyEvent(kb.Tab))
		if js[bool](b, fmt.Sprintf("document.activeElement.innerText === %q", vassal)) {
			if outline := js[string](b, "getComputedStyle(document.activeElement).outlineStyle"); outline != "solid" {
				r.t.Errorf("where the focus is cannot be seen: %s", outline)
			}
			return
		}
	}
	r.t.Fatalf("the Tab key does not lead to %s", vassal)
}

// Without scripts the page is whole: a link reloads it, a form filters.
func TestWebPageWithoutScripts(t *testing.T) {
	t.Parallel()
	b := newBrowser(t)
	r := newRealm(t, nativeNetwork+"emperor-web = "+webSocket+"\n", map[string]string{"blog": agentIni, "shop": agentIni})
	r.reach("blog")
	r.reach("shop")
	b.scripts(false)
	b.do(chromedp.Navigate(r.webPage()))
	b.shows("the vassals", rowOf("blog")+" !== null && "+rowOf("shop")+" !== null")
	if js[bool](b, "document.getElementById('pause').checkVisibility()") {
		t.Error("a button is there that does nothing")
	}
	r.drop("late", agentIni)
	r.reach("late")
	nettest.Eventually(t, patience, "one that came later, after a reload", func() bool {
		b.follow("#reload")
		return js[bool](b, rowOf("late")+" !== null")
	})
	b.do(chromedp.SendKeys(chromedp.CSS("#filter input"), "sho"))
	b.follow("#filter button")
	b.shows("what the filter lets through", rowOf("shop")+" !== null && "+rowOf("blog")+" === null && location.search === '?filter=sho'")
	b.follow(`a[href="vassal?name=shop"]`)
	b.shows("one vassal", "document.querySelector('h1')?.innerText.startsWith('shop')")
	r.stop(syscall.SIGTERM)
}

// A page that is open goes on with the next emperor: one that adopts after a
// kill, and one by another program.
func TestWebPageOutlivesEmperor(t *testing.T) {
	t.Parallel()
	b := newBrowser(t)
	r := newRealm(t, nativeNetwork+"emperor-web = "+webSocket+"\n", map[string]string{"blog": agentIni})
	pid := r.reach("blog").PID
	b.do(chromedp.Navigate(r.webPage()))
	live := func() {
		t.Helper()
		b.shows("it is live", "document.getElementById('live').innerText.startsWith('live,') && !document.body.classList.contains('away') && "+rowOf("blog")+"?.innerText.includes('running')")
	}
	live()
	if err := r.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.cmd.Wait()
	b.shows("the emperor is away", "document.body.classList.contains('away') && document.getElementById('live').innerText.includes('trying again')")
	if !js[bool](b, rowOf("blog")+" !== null") {
		t.Error("what was known is not shown any more")
	}
	r.start()
	live()
	began := js[string](b, "document.querySelector('footer').innerText")
	r.mustRun("upgrade")
	live()
	if now := r.ps("blog").PID; now != pid {
		t.Errorf("blog was pid %d and is %d", pid, now)
	}
	if began == "" {
		t.Error("it does not say since when the emperor runs")
	}
	b.forgive("net::ERR")
	r.stop(syscall.SIGTERM)
	b.forgive("net::ERR")
}

// The socket is whose the ini says, and answers to tools as well.
func TestWebSocketRights(t *testing.T) {
	t.Parallel()
	r := newRealm(t, nativeNetwork+"emperor-web = "+webSocket+"\n", map[string]string{"blog": agentIni})
	r.reach("blog")
	stat := func() string { return strings.TrimSpace(r.Run(t, "stat", "-c", "%a %u:%g", webSocket)) }
	if got := stat(); got != "600 0:0" {
		t.Errorf("the socket is %s", got)
	}
	var all []emperor.Status
	if err := json.Unmarshal([]byte(r.Run(t, "curl", "-sf", "--unix-socket", webSocket, "http://localhost/api/vassals")), &all); err != nil || len(all) != 1 || all[0].Name != "blog" {
		t.Errorf("%v, %v", all, err)
	}
	if out := r.Run(t, "curl", "-s", "--unix-socket", webSocket, "http://status.example/"); !strings.Contains(out, `send "Host: localhost"`) {
		t.Errorf("a name that leads elsewhere gets %s", out)
	}
	r.stop(syscall.SIGTERM)
	r.write("/run/t/emperor.ini", nativeNetwork+"emperor-web = "+webSocket+"\nemperor-web-chmod-socket = 660\nemperor-web-chown-socket = :33\n")
	r.start()
	if got := stat(); got != "660 0:33" {
		t.Errorf("the socket is %s", got)
	}
	r.stop(syscall.SIGTERM)
}

// At an address the page wants its key, and vassals do not get there at all.
func TestWebByTCP(t *testing.T) {
	t.Parallel()
	b := newBrowser(t)
	const address = "127.0.0.1:9280"
	r := newRealm(t, nativeNetwork+"emperor-web = "+address+"\n", map[string]string{"blog": agentIni})
	blog := r.reach("blog")
	keyFile := "/var/lib/fiefdom/emperor/" + webKey
	if mode := r.Run(t, "stat", "-c", "%a %u", keyFile); strings.TrimSpace(mode) != "600 0" {
		t.Errorf("the key's file is %s", mode)
	}
	key := strings.TrimSpace(r.read(keyFile))
	ask := func(key string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.SetBasicAuth("me", key)
		}
		resp, err := clientIn(r.Host).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if code, text := ask(""); code != http.StatusUnauthorized || !strings.Contains(text, keyFile) || strings.Contains(text, "blog") {
		t.Errorf("without the key: %d, %s", code, text)
	}
	if code, text := ask(key); code != http.StatusOK || !strings.Contains(text, "blog") {
		t.Errorf("with the key: %d, %s", code, text)
	}
	for _, host := range []string{"127.0.0.1", "10.9.0.1", nettest.HostAddr4.String()} {
		if out, err := r.sh(blog, "curl -s -m 2 --noproxy '*' http://"+host+":9280/"); err == nil {
			t.Errorf("a vassal gets to %s: %s", host, out)
		}
	}
	// A browser that has the key keeps it, for what the script asks too.
	to := tunnel(t, func() (c net.Conn, err error) {
		return c, netns.Do(r.Host.Handle, func() error { c, err = net.Dial("tcp", address); return err })
	})
	b.do(chromedp.Navigate("http://me:" + key + "@" + to + "/"))
	b.shows("the vassal", rowOf("blog")+" !== null")
	r.drop("late", agentIni)
	b.shows("what came later", rowOf("late")+"?.innerText.includes('running')")
	r.stop(syscall.SIGTERM)
	r.start()
	if again := strings.TrimSpace(r.read(keyFile)); again != key {
		t.Error("the next start has another key")
	}
	r.stop(syscall.SIGTERM)
	b.forgive("net::ERR")
}

// A vassal on the host's own network can connect, and gets no further. The page
// is there without any network of the emperor's, too.
func TestWebBesideVassalWithoutJail(t *testing.T) {
	t.Parallel()
	r := layRealm(t, nettest.NewWorld(t), "emperor", "[uwsgi]\nemperor = /run/t/vassals\nemperor-web = 127.0.0.1:9280\n")
	r.drop("plain", "[uwsgi]\nuid = 65534\ngid = 65534\ncommand = /bin/sh -c 'curl -s http://127.0.0.1:9280/; cat /var/lib/fiefdom/emperor/web.key; exec sleep 1000'\n")
	r.start()
	nettest.Eventually(t, patience, "it was turned away", func() bool {
		out := r.mustRun("logs", "plain")
		return strings.Contains(out, "the page has a key") && strings.Contains(out, "Permission denied")
	})
	key := strings.TrimSpace(r.read("/var/lib/fiefdom/emperor/" + webKey))
	if out := r.Run(t, "curl", "-sf", "-u", "me:"+key, "http://127.0.0.1:9280/vassal?name=plain"); !strings.Contains(out, "Permission denied") || strings.Contains(out, key) {
		t.Errorf("its page:\n%s", out)
	}
	r.stop(syscall.SIGTERM)
}

// A key that others may know is none.
func TestWebKeyOfOthers(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/web.key"
	key, err := readKey(path)
	if err != nil || len(key) < keyLength {
		t.Fatalf("%q, %v", key, err)
	}
	if again, err := readKey(path); err != nil || again != key {
		t.Errorf("%q, %v", again, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if key, err := readKey(path); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("%q, %v", key, err)
	}
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil || os.Chmod(path, 0o600) != nil {
		t.Fatal(err)
	}
	if key, err := readKey(path); err == nil || key != "" {
		t.Errorf("%q, %v", key, err)
	}
	link := t.TempDir() + "/web.key"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if key, err := readKey(link); err == nil {
		t.Errorf("%q by a link", key)
	}
}
