// Command pages signs in to a CRM that is served somewhere, follows every link of its pages, and says how long each kind of page takes:
//
//	crm demo --customers 1000000 --data DIR         the one-time passwords are printed once
//	crm --http --addr localhost:8080 --data DIR &
//	go run -C internal/bench ./pages -url http://localhost:8080 -user admin@demo.example -search 张伟,'138 0013 5678',lin@example.com
//
// The password is read from the variable CRM_PASSWORD, or a one-time one, which is exchanged for it, from CRM_ONE_TIME. Pages are told apart by
// their path, ids aside, and the names of their parameters. Lists are followed page by page, too.
package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/net/html"
)

func main() {
	base := flag.String("url", "http://localhost:8080", "address of the CRM")
	user := flag.String("user", "admin@demo.example", "who signs in")
	times := flag.Int("times", 20, "how often each page is asked for")
	samples := flag.Int("samples", 3, "pages of one kind")
	deep := flag.Int("deep", 100, "how far lists are followed")
	search := flag.String("search", "", "comma-separated terms that the search of the pages is asked for")
	flag.Parse()
	c, err := newCrawler(*base)
	if err != nil {
		log.Fatal(err)
	}
	if err := c.signIn(context.Background(), *user, os.Getenv("CRM_ONE_TIME"), os.Getenv("CRM_PASSWORD")); err != nil {
		log.Fatal(err)
	}
	c.times, c.samples, c.deep = *times, *samples, *deep
	if *search != "" {
		c.terms = strings.Split(*search, ",")
	}
	if err := c.run(context.Background()); err != nil {
		log.Fatal(err)
	}
	if err := c.print(os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// crawler asks for pages.
type crawler struct {
	http                 *http.Client
	base                 *url.URL
	times, samples, deep int
	terms                []string
	searches             []string // where terms are posted

	kinds map[string]*kind
	seen  map[string]bool
	queue []string // addresses below base
}

// kind is all pages of one pattern.
type kind struct {
	pattern string
	took    []time.Duration
	pages   int
	status  map[int]int
	slowest time.Duration
	bytes   int
}

func newCrawler(base string) (*crawler, error) {
	u, err := url.Parse(strings.TrimSuffix(base, "/"))
	if err != nil {
		return nil, err
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: u.Hostname() == "localhost", MinVersion: tls.VersionTLS12} // #nosec G402 -- its own machine's certificate is self-made
	return &crawler{
		http: &http.Client{Jar: jar, Transport: tr, Timeout: time.Minute}, base: u, times: 1, samples: 1, deep: 1,
		kinds: map[string]*kind{}, seen: map[string]bool{},
	}, nil
}

func (c *crawler) post(ctx context.Context, path string, form url.Values) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+path, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", path, res.StatusCode)
	}
	return nil
}

// signIn signs in with a password, after a one-time one was exchanged for it.
func (c *crawler) signIn(ctx context.Context, user, once, password string) error {
	if once == "" {
		return c.post(ctx, "/sign-in", url.Values{"email": {user}, "password": {password}})
	}
	if err := c.post(ctx, "/sign-in", url.Values{"email": {user}, "password": {once}}); err != nil {
		return err
	}
	return c.post(ctx, "/password", url.Values{"old": {once}, "new": {password}, "again": {password}})
}

// hopeless is how long a page takes, the second time too, that is not asked for again.
const hopeless = 3 * time.Second

// run follows the links from the first page on, breadth first, then asks for each page again until it was asked for often enough.
func (c *crawler) run(ctx context.Context) error {
	var asked []string
	c.add("/")
	for len(c.queue) > 0 {
		at := c.queue[0]
		c.queue = c.queue[1:]
		body, err := c.visit(ctx, at)
		if err != nil {
			return err
		}
		asked = append(asked, at)
		links, search := parse(body)
		for _, l := range links {
			c.add(c.below(at, l))
		}
		if to := c.below(at, search); search != "" && !slices.Contains(c.searches, to) {
			c.searches = append(c.searches, to)
		}
		if next := nextOf(body); next != "" && c.deep > 1 {
			if err := c.follow(ctx, c.below(at, next)); err != nil {
				return err
			}
		}
	}
	for range c.times - 1 {
		for _, at := range asked {
			if took := c.kindOf(patternOf(at)).took; len(took) > 1 && slices.Min(took) > hopeless {
				continue
			}
			if _, err := c.visit(ctx, at); err != nil {
				return err
			}
		}
	}
	for _, to := range c.searches {
		for i, term := range c.terms {
			for range c.times {
				if err := c.search(ctx, to, term, i+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// search posts a term to a form, so that it is in no address. Each term counts as a kind, by its number: it may be somebody's name.
func (c *crawler) search(ctx context.Context, to, term string, number int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.String()+to, strings.NewReader(url.Values{"q": {term}}.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	k := c.kindOf(fmt.Sprintf("%s for term %d", patternOf(to), number))
	k.pages = 1
	_, err = c.measure(req, k)
	return err
}

// follow goes through the next pages of a list; the last one counts as a kind of its own.
func (c *crawler) follow(ctx context.Context, at string) error {
	key := patternOf(at) + " far"
	if at == "" || c.kinds[key] != nil {
		return nil
	}
	n := 2
	for ; n < c.deep; n++ {
		body, _, err := c.get(ctx, at)
		if err != nil {
			return err
		}
		next := nextOf(body)
		if next == "" {
			break
		}
		at = c.below(at, next)
	}
	for i := range c.times {
		_, took, err := c.get(ctx, at)
		if err != nil {
			return err
		}
		c.kindOf(key).count(took, http.StatusOK, i == 0)
	}
	return nil
}

// add queues a page unless there were enough of its kind.
func (c *crawler) add(at string) {
	if at == "" || c.seen[at] || strings.HasPrefix(at, "/static/") || strings.Contains(at, "language=") {
		return
	}
	k := c.kindOf(patternOf(at))
	if k.pages >= c.samples {
		return
	}
	k.pages++
	c.seen[at] = true
	c.queue = append(c.queue, at)
}

func (c *crawler) kindOf(pattern string) *kind {
	k := c.kinds[pattern]
	if k == nil {
		k = &kind{pattern: pattern, status: map[int]int{}}
		c.kinds[pattern] = k
	}
	return k
}

func (k *kind) count(took time.Duration, status int, page bool) {
	k.took = append(k.took, took)
	k.slowest = max(k.slowest, took)
	k.status[status]++
	if page {
		k.pages++
	}
}

// visit asks for a page and notes how long it took to the last byte.
func (c *crawler) visit(ctx context.Context, at string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+at, nil)
	if err != nil {
		return "", err
	}
	return c.measure(req, c.kindOf(patternOf(at)))
}

// measure sends a request and counts it.
func (c *crawler) measure(req *http.Request, k *kind) (string, error) {
	start := time.Now()
	res, err := c.http.Do(req)
	if err != nil {
		k.count(time.Since(start), 0, false) // no answer in time
		return "", req.Context().Err()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err != nil {
		return "", err
	}
	if took := time.Since(start); took > time.Second {
		fmt.Fprintf(os.Stderr, "%s: %s\n", k.pattern, took.Round(time.Millisecond))
	}
	k.count(time.Since(start), res.StatusCode, false)
	k.bytes = max(k.bytes, len(body))
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		return "", nil
	}
	return string(body), nil
}

func (c *crawler) get(ctx context.Context, at string) (string, time.Duration, error) {
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.String()+at, nil)
	if err != nil {
		return "", 0, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 64<<20))
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(patternOf(at) + " answers " + res.Status)
	}
	return string(body), time.Since(start), err
}

// below resolves a link of a page; "" for one that leads elsewhere.
func (c *crawler) below(at, link string) string {
	from, err := c.base.Parse(at)
	if err != nil {
		return ""
	}
	to, err := from.Parse(link)
	if err != nil || to.Host != c.base.Host || to.Scheme != c.base.Scheme {
		return ""
	}
	to.Fragment = ""
	return to.RequestURI()
}

var idLike = regexp.MustCompile(`^([0-9a-f]{8}-[0-9a-f-]{27}|\d+)$`)

var choice = regexp.MustCompile(`^[a-z_]+$`)

// patternOf is the path of a page with {id} for ids, and its parameters: those that choose by a word with it, others by name.
func patternOf(at string) string {
	path, query, _ := strings.Cut(at, "?")
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if idLike.MatchString(p) {
			parts[i] = "{id}"
		}
	}
	path = strings.Join(parts, "/")
	values, err := url.ParseQuery(query)
	if err != nil || len(values) == 0 {
		return path
	}
	var names []string
	for n, v := range values {
		if n != "after" && len(v) == 1 && choice.MatchString(v[0]) {
			n += "=" + v[0]
		}
		names = append(names, n)
	}
	slices.Sort(names)
	return path + "?" + strings.Join(names, "&")
}

// parse returns the links of a page, and where its form for searches posts to; "" where it has none.
func parse(body string) (links []string, search string) {
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		return nil, ""
	}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		switch n.Data {
		case "a":
			if href := attr(n, "href"); href != "" && !has(n, "download") {
				links = append(links, href)
			}
		case "input":
			if attr(n, "name") != "q" {
				continue
			}
			for f := range n.Ancestors() {
				if f.Data == "form" && strings.EqualFold(attr(f, "method"), http.MethodPost) {
					search = attr(f, "action")
				}
			}
		}
	}
	return links, search
}

// nextOf is the link to the next page of a list.
func nextOf(body string) string {
	doc, err := html.Parse(strings.NewReader(body))
	if err != nil {
		return ""
	}
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode && n.Data == "a" && attr(n, "rel") == "next" {
			return attr(n, "href")
		}
	}
	return ""
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, name string) bool {
	return slices.ContainsFunc(n.Attr, func(a html.Attribute) bool { return a.Key == name })
}

// print writes one line for each kind, the slowest first.
func (c *crawler) print(w io.Writer) error {
	all := make([]*kind, 0, len(c.kinds))
	for _, k := range c.kinds {
		if len(k.took) > 0 {
			slices.Sort(k.took)
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b *kind) int { return cmp.Compare(b.at(50), a.at(50)) })
	tw := tabwriter.NewWriter(w, 2, 2, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "p50 ms\tp99 ms\tmost ms\tpages\ttimes\tKiB\tstatus\tpage\t")
	for _, k := range all {
		fmt.Fprintf(tw, "%.1f\t%.1f\t%.1f\t%d\t%d\t%d\t%s\t%s\t\n", ms(k.at(50)), ms(k.at(99)), ms(k.slowest), k.pages, len(k.took), k.bytes>>10, statuses(k.status), k.pattern)
	}
	return tw.Flush()
}

func (k *kind) at(percent int) time.Duration { return k.took[(len(k.took)-1)*percent/100] }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func statuses(m map[int]int) string {
	var out []string
	for s := range m {
		out = append(out, fmt.Sprint(s))
	}
	slices.Sort(out)
	return strings.Join(out, ",")
}
