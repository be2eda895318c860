package main_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/audit"
	"github.com/crmguard/crmguard/audit/witness"
)

// The log's heads go to a witness and to a folder of copies, its events to a file for the SIEM. Whoever puts back the whole data
// folder as it was, with its database and its log, is found out.
func TestOutside(t *testing.T) {
	dir := t.TempDir()
	data, copies, siem := filepath.Join(dir, "data"), filepath.Join(dir, "copies"), filepath.Join(dir, "siem.jsonl")
	mustRun(t, nil, "verify", "--help") // built before anything is timed

	// The witness knows the log by its key, which there is before the first start.
	require.NoError(t, os.MkdirAll(data, 0o700))
	signer, err := audit.OpenSigningKey(filepath.Join(data, "signing.key"), "crmguard.example/default/main")
	require.NoError(t, err)
	_, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	cosigner, err := witness.NewCosigner("witness.example/w", private)
	require.NoError(t, err)
	server, err := witness.NewServer(cosigner, []string{signer.VerifierKey()}, witness.NewMemStore(), nil)
	require.NoError(t, err)
	at := httptest.NewServer(server)
	defer at.Close()
	policy := filepath.Join(dir, "policy")
	require.NoError(t, os.WriteFile(policy, fmt.Appendf(nil, "log %s\nwitness w %s %s\nquorum w\n", signer.VerifierKey(), cosigner.Key(), at.URL), 0o600))

	require.NoError(t, os.Mkdir(copies, 0o700))
	args := []string{"--witnesses", policy, "--head-copies", copies, "--siem", "file:" + siem}
	verify := func() (string, int) {
		return run(t, nil, append([]string{"verify", "--data", data}, args...)...)
	}
	p := serve(t, data, nil, args...)
	time.Sleep(3 * time.Second) // every head has left by now, and no further one comes at the end
	p.stop(t)
	out, code := verify()
	require.Zero(t, code, out)
	require.Contains(t, out, "Anchored", "the last head is cosigned at the end")

	// Each event has left, once, in order.
	sizes := regexp.MustCompile(`(\d+) events`).FindStringSubmatch(out)
	require.NotNil(t, sizes, out)
	size, err := strconv.Atoi(sizes[1])
	require.NoError(t, err)
	require.Greater(t, size, 20)
	sent := func() []uint64 {
		f, err := os.Open(siem)
		require.NoError(t, err)
		defer f.Close()
		var indexes []uint64
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var e struct {
				Metadata struct {
					UID string `json:"uid"`
				} `json:"metadata"`
			}
			require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
			parts := strings.Split(e.Metadata.UID, "/")
			n, err := strconv.ParseUint(parts[len(parts)-1], 10, 64)
			require.NoError(t, err, lines.Text())
			indexes = append(indexes, n)
		}
		return indexes
	}
	for i, n := range sent() {
		require.EqualValues(t, i, n)
	}
	require.Len(t, sent(), size)

	// The whole folder is kept, the CRM goes on, and the folder is put back.
	kept := filepath.Join(dir, "kept")
	require.NoError(t, exec.Command("cp", "-a", data, kept).Run()) // with the modes
	p = serve(t, data, nil, args...)
	p.stop(t)
	require.Greater(t, len(sent()), size)
	out, code = verify()
	require.Zero(t, code, out)
	require.NoError(t, os.Rename(data, filepath.Join(dir, "away")))
	require.NoError(t, os.Rename(kept, data))
	out, code = verify()
	assert.NotZero(t, code, out)
	assert.Contains(t, out, "Truncated")
	path, err := binary()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	refused, err := exec.CommandContext(ctx, path, append([]string{"serve", "--data", data, "--addr", "localhost:0"}, args...)...).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(refused), "shorter than a known checkpoint")
	// The witness alone says so too.
	refused, err = exec.CommandContext(ctx, path, "serve", "--data", data, "--addr", "localhost:0", "--witnesses", policy).CombinedOutput()
	require.Error(t, err)
	assert.Contains(t, string(refused), "not the one that its witnesses know")
	// Without the copies the database that was put back with the log says nothing.
	out, code = run(t, nil, "verify", "--data", data)
	assert.Zero(t, code, out)
}

func TestOutsideRefuses(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	require.NoError(t, os.WriteFile(bad, []byte("nonsense"), 0o600))
	began := time.Now()
	for i, args := range [][]string{
		{"--siem", "http://siem.example/x"}, {"--siem", "tls://siem.example"}, {"--siem", "tls://user:secret@siem.example:6514"},
		{"--siem", "syslog"}, {"--siem", "file:" + filepath.Join(dir, "s"), "--siem-format", "xml"},
		{"--siem", "tls://siem.example:6514", "--siem-ca", bad}, {"--siem", "https://user:secret@%zz/"},
		{"--witnesses", bad}, {"--witnesses", filepath.Join(dir, "none")}, {"--head-copies", bad}, {"--head-copies", filepath.Join(dir, "none")},
	} {
		out, code := run(t, nil, append([]string{"serve", "--addr", "localhost:0", "--data", filepath.Join(dir, fmt.Sprint(i))}, args...)...)
		assert.NotZero(t, code, "%v: %s", args, out)
		assert.NotContains(t, out, "secret")
		assert.NotContains(t, out, "panic")
	}
	t.Log(time.Since(began))
}
