package main_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// kills is how many times each test kills.
func kills() int {
	if soak {
		return 10
	}
	return 3
}

var storedLine = regexp.MustCompile(`^stored (\d+) of`)

// importBatch is how many rows an import stores in one transaction.
const importBatch = 900

// TestKillImport: kill -9 in the middle of an import costs no row that was acknowledged, and leaves
// whole batches only.
func TestKillImport(t *testing.T) {
	long(t)
	path, err := binary()
	require.NoError(t, err)
	file := csvOf(t, people(worlds.Add(1), 20_000))
	base := small(t, nil)
	before := green(t, nil, "--data", base).Rows.Rows
	for i := range kills() {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			data := copied(t, base)
			cmd := exec.Command(path, "import", file, "--data", data)
			cmd.Env = os.Environ()
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			out, err := cmd.StdoutPipe()
			require.NoError(t, err)
			require.NoError(t, cmd.Start())
			after, wait := 1+rand.IntN(8), time.Duration(rand.IntN(300))*time.Millisecond
			acknowledged := int64(0)
			lines := bufio.NewScanner(out)
			for n := 0; lines.Scan(); {
				m := storedLine.FindStringSubmatch(lines.Text())
				if m == nil {
					continue
				}
				acknowledged, _ = strconv.ParseInt(m[1], 10, 64)
				if n++; n == after {
					time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
				}
			}
			require.Error(t, cmd.Wait(), "it ended before it was killed")

			said, code := run(t, nil, "account", "reset", "admin@demo.example", "--data", data)
			require.Zero(t, code, said)
			v := green(t, nil, "--data", data)
			stored := v.Rows.Rows - before
			assert.GreaterOrEqual(t, stored, acknowledged, "an acknowledged row is missing")
			assert.Zero(t, (stored-1)%importBatch, "half a batch is there, beside the record of the import")
			t.Logf("killed %v after batch %d: %d acknowledged, %d stored; %s", wait, after, acknowledged, stored, announced(said))

			// The store goes on as if nothing had been.
			mustRun(t, nil, "import", csvOf(t, people(worlds.Add(1), 10)), "--data", data)
			assert.Equal(t, v.Rows.Rows+10+1, green(t, nil, "--data", data).Rows.Rows)
		})
	}
}

var announcedLine = regexp.MustCompile(`\d+ announced writes had not been made[^\n]*`)

// announced is what a start says of writes that a crash cut off.
func announced(output string) string {
	if m := announcedLine.FindString(output); m != "" {
		return m
	}
	return "nothing was open"
}

// TestKillServe: kill -9 of a serving process costs nothing that it has acknowledged: every record of
// which a browser was sent to the page is there, at least in the version that was acknowledged last.
func TestKillServe(t *testing.T) {
	long(t)
	data := small(t, nil)
	for i := range kills() {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			p := serve(t, data, nil)
			c := p.signIn(t, "admin")
			c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			type customer struct{ path, name, city string }
			var mu sync.Mutex
			var acknowledged []customer
			requests := 0
			var wg sync.WaitGroup
			for w := range 4 {
				wg.Go(func() {
					for n := 0; ; n++ {
						k := customer{name: fmt.Sprintf("Kundin %d-%d-%d", i, w, n), city: "Ulm"}
						send := func(path string, form url.Values) (*http.Response, bool) {
							r, err := c.PostForm(c.base+path, form)
							if err != nil {
								return nil, false // killed
							}
							r.Body.Close()
							return r, r.StatusCode == http.StatusSeeOther
						}
						r, ok := send("/customers", url.Values{"name": {k.name}, "kind": {"company"}, "city": {k.city}, "phone": {fmt.Sprintf("138%d%d%06d", i, w, n)}})
						if !ok {
							return
						}
						k.path = r.Header.Get("Location")
						mu.Lock()
						at := len(acknowledged)
						acknowledged = append(acknowledged, k)
						requests++
						mu.Unlock()
						if _, ok := send(k.path, url.Values{"version": {"1"}, "city": {"Bonn"}}); !ok {
							return
						}
						mu.Lock()
						acknowledged[at].city = "Bonn"
						requests++
						mu.Unlock()
					}
				})
			}
			want := 20 + rand.IntN(60)
			require.Eventually(t, func() bool {
				mu.Lock()
				defer mu.Unlock()
				return requests >= want
			}, time.Minute, time.Millisecond)
			p.kill()
			wg.Wait()

			p = serve(t, data, nil)
			c = p.signIn(t, "admin")
			updated := 0
			for _, k := range acknowledged {
				require.Regexp(t, customerPath, k.path)
				r := one(t, c.get(t, "/api/v1"+k.path))
				require.Equal(t, k.name, r.Fields["name"].Value)
				if k.city == "Bonn" {
					updated++
					require.Equal(t, "Bonn", r.Fields["city"].Value, "an acknowledged change is missing")
				}
			}
			p.stop(t)
			green(t, nil, "--data", data)
			t.Logf("killed after %d acknowledged records and %d changes: all there; %s", len(acknowledged), updated, announced(p.output.String()))
		})
	}
}
