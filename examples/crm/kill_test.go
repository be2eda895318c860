package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
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
	return 2
}

var storedLine = regexp.MustCompile(`^stored (\d+) of`)

// importBatch is how many rows an import stores in one transaction.
const importBatch = 900

// TestKillImport: kill -9 in the middle of an import costs no row that was acknowledged, leaves whole batches only, and the import is gone on with: nothing is missing and nothing is there
// twice. Each second time the serving process has it, which goes on by itself.
func TestKillImport(t *testing.T) {
	long(t)
	const rows = 6300
	file := csvOf(t, people(worlds.Add(1), rows))
	base := small(t, nil)
	before := green(t, nil, "--data", base).Rows.Rows
	rounds := 3
	if soak {
		rounds = 20
	}
	inside := 0
	for i := range rounds {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			data := copied(t, base)
			defer os.RemoveAll(data)
			batch := 1 + i*6/rounds // spread over the work
			wait := time.Duration(rand.IntN(300)) * time.Millisecond
			if i%2 == 1 {
				if killServedImport(t, data, file, rows, batch, wait) {
					inside++
				}
			} else if killImport(t, data, file, rows, before, batch, wait) {
				inside++
			}
			v := green(t, nil, "--data", data)
			kept := int64(0)
			if i%2 == 1 {
				kept = 1 // the key of the file
			}
			assert.Equal(t, before+rows+1+kept, v.Rows.Rows, "something is missing or there twice")

			// The store goes on as if nothing had been.
			mustRun(t, nil, "import", csvOf(t, people(worlds.Add(1), 10)), "--data", data, "--duplicates", "off")
			assert.Equal(t, v.Rows.Rows+10+1, green(t, nil, "--data", data).Rows.Rows)
		})
	}
	t.Logf("%d imports of %d rows, %d killed before their end, all whole after they were gone on with", rounds, rows, inside)
	assert.Positive(t, inside)
}

var (
	begunLine = regexp.MustCompile(`^import ([0-9a-f-]{36})$`)
	inLine    = regexp.MustCompile(`(?m)^(\d+) rows in .*, (\d+) stored, 0 rejected`)
)

// killed runs a command and kills it some time behind the nth line that matches. It returns what the command acknowledged last, and whether it was killed before its end.
func killed(t *testing.T, line *regexp.Regexp, nth int, wait time.Duration, args ...string) (id string, acknowledged int64, inside bool) {
	t.Helper()
	path, err := binary()
	require.NoError(t, err)
	cmd := exec.Command(path, args...)
	cmd.Env = os.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); {
		if m := begunLine.FindStringSubmatch(lines.Text()); m != nil {
			id = m[1]
		}
		m := line.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		acknowledged, _ = strconv.ParseInt(m[1], 10, 64)
		if n++; n == nth {
			time.AfterFunc(wait, func() { _ = cmd.Process.Kill() })
		}
	}
	return id, acknowledged, cmd.Wait() != nil
}

func killImport(t *testing.T, data, file string, rows, before int64, batch int, wait time.Duration) bool {
	id, acknowledged, inside := killed(t, storedLine, batch, wait, "import", file, "--data", data, "--duplicates", "off")
	require.NotEmpty(t, id)
	said, code := run(t, nil, "account", "reset", "admin@demo.example", "--data", data)
	require.Zero(t, code, said)
	stored := green(t, nil, "--data", data).Rows.Rows - before
	assert.GreaterOrEqual(t, stored, acknowledged, "an acknowledged row is missing")
	assert.Zero(t, (stored-1)%importBatch, "half a batch is there, beside the record of the import")
	out, _ := run(t, nil, "import", file, "--resume", id, "--data", data, "--duplicates", "off")
	t.Logf("killed %v after batch %d: %d acknowledged, %d stored; %s", wait, batch, acknowledged, stored-1, announced(said))
	if inside && stored-1 < rows {
		m := inLine.FindStringSubmatch(out)
		require.NotNil(t, m, out)
		assert.Equal(t, []string{strconv.FormatInt(rows, 10), strconv.FormatInt(rows, 10)}, m[1:], out)
	}
	return inside
}

// imported is an import as the API tells of it.
type imported struct {
	ID, State string
	Working   bool
	Counts    struct{ Rows, Created, Rejected, Matched int64 }
	Undone    int64
	Left      int64
}

func (c *client) imported(t testing.TB, id string) (out imported) {
	t.Helper()
	r := c.get(t, "/api/v1/imports/"+id)
	require.Equal(t, http.StatusOK, r.status, r.body)
	require.NoError(t, json.Unmarshal([]byte(r.body), &out))
	return out
}

// sendFile posts a file to the API.
func (c *client) sendFile(t testing.TB, path string, fields ...string) response {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for i := 0; i < len(fields); i += 2 {
		require.NoError(t, w.WriteField(fields[i], fields[i+1]))
	}
	f, err := w.CreateFormFile("file", "customers.csv")
	require.NoError(t, err)
	_, err = f.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+"/api/v1/imports", &body)
	require.NoError(t, err)
	req.Header.Set("Content-Type", w.FormDataContentType())
	return c.do(t, req)
}

// finished waits until an import is in a state and nobody works on it.
func (c *client) finished(t testing.TB, id, state string) imported {
	t.Helper()
	var last imported
	require.Eventually(t, func() bool {
		last = c.imported(t, id)
		return last.State == state && !last.Working
	}, 5*time.Minute, 100*time.Millisecond, "%+v", &last)
	return last
}

func killServedImport(t *testing.T, data, file string, rows int64, batch int, wait time.Duration) bool {
	p := serve(t, data, nil, "--seed=false")
	c := p.signIn(t, "admin")
	r := c.sendFile(t, file, "type", "customer", "duplicates", "off")
	require.Equal(t, http.StatusAccepted, r.status, r.body)
	var begun imported
	require.NoError(t, json.Unmarshal([]byte(r.body), &begun))
	seen := begun
	require.Eventually(t, func() bool {
		seen = c.imported(t, begun.ID)
		return seen.Counts.Rows >= int64(batch)*importBatch || seen.State == "done"
	}, 5*time.Minute, 5*time.Millisecond)
	time.Sleep(wait / 4)
	p.kill()
	p = serve(t, data, nil, "--seed=false")
	c = p.signIn(t, "admin")
	after := c.imported(t, begun.ID)
	last := c.finished(t, begun.ID, "done")
	assert.Equal(t, rows, last.Counts.Created)
	assert.Zero(t, last.Counts.Rejected)
	left, err := filepath.Glob(filepath.Join(data, "uploads", "*"))
	require.NoError(t, err)
	assert.Empty(t, left, "the sealed file goes when the import is over")
	p.stop(t)
	t.Logf("killed the server %v after batch %d: %d rows acknowledged, %d at the restart, %d at the end; %s", wait/4, batch, seen.Counts.Rows, after.Counts.Rows, last.Counts.Created, announced(p.output.String()))
	assert.GreaterOrEqual(t, after.Counts.Rows, seen.Counts.Rows)
	return seen.State == "running"
}

// TestKillUndoImport: kill -9 in the middle of an undo leaves each record whole, new or taken back, and the undo is gone on with: all that was imported is in the bin, once, and nothing else is.
func TestKillUndoImport(t *testing.T) {
	long(t)
	const rows = 3000
	base := small(t, nil)
	mustRun(t, nil, "import", csvOf(t, people(worlds.Add(1), 10)), "--data", base) // of somebody else's import, to stay
	out := mustRun(t, nil, "import", csvOf(t, people(worlds.Add(1), rows)), "--data", base, "--duplicates", "off")
	m := regexp.MustCompile(`(?m)^import ([0-9a-f-]{36})$`).FindStringSubmatch(out)
	require.NotNil(t, m, out)
	id := m[1]
	before := green(t, nil, "--data", base).Rows.Rows
	rounds := 3
	if soak {
		rounds = 20
	}
	inside := 0
	for i := range rounds {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			data := copied(t, base)
			defer os.RemoveAll(data)
			step := 1 + i*14/rounds // of fifteen
			wait := time.Duration(rand.IntN(150)) * time.Millisecond
			var p *process
			if i%2 == 0 {
				_, _, cut := killed(t, storedLine, step, wait, "import", "-", "--undo", id, "--data", data)
				green(t, nil, "--data", data)
				p = serve(t, data, nil, "--seed=false")
				if cut {
					inside++
				}
			} else {
				p = serve(t, data, nil, "--seed=false")
				c := p.signIn(t, "admin")
				r := c.postJSON(t, "/api/v1/imports/"+id+"/undo", "{}")
				require.Equal(t, http.StatusAccepted, r.status, r.body)
				var seen imported
				require.Eventually(t, func() bool {
					seen = c.imported(t, id)
					return seen.Undone >= int64(step)*200 || seen.State == "undone"
				}, 5*time.Minute, 2*time.Millisecond)
				time.Sleep(wait / 4)
				p.kill()
				if seen.State == "undoing" {
					inside++
				}
				p = serve(t, data, nil, "--seed=false")
			}
			c := p.signIn(t, "admin")
			at := c.imported(t, id)
			last := c.finished(t, id, "undone")
			assert.EqualValues(t, rows, last.Undone)
			assert.Zero(t, last.Left)
			assert.Len(t, items(t, c.get(t, "/api/v1/customers?limit=200")), 10, "the others stay")
			p.stop(t)
			assert.Equal(t, before, green(t, nil, "--data", data).Rows.Rows, "rows were made or lost")
			t.Logf("killed %v after step %d: %d undone at the restart, %d at the end; %s", wait, step, at.Undone, last.Undone, announced(p.output.String()))
		})
	}
	t.Logf("%d undos of %d rows, %d killed before their end, all whole", rounds, rows, inside)
	assert.Positive(t, inside)
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
