// Package drill proves that a backup can be restored by restoring it: into a scratch store that is thrown away, with the
// time taken, and a signed report of what came back.
//
// [Run] takes a snapshot, the newest or a random one, looks at its objects, restores it as a disaster would want it (keys, tombstones, rows), compares every row of the scratch
// store with the snapshot's record index, lets the database check its references, and lets the program look at its own data. A drill
// that fails has a report too: it is red and says at which step. [Verify] reads a report, years later, with nothing but
// the public key.
package drill

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
)

// Scratch is a store that exists for one drill. Package sqlsource makes them.
type Scratch interface {
	backup.Sink
	backup.Source
	// Integrity lets the store check itself: references, indexes, pages.
	Integrity(ctx context.Context) error
	// Close destroys it.
	Close() error
}

// Options of [Run].
type Options struct {
	// Open makes the scratch store, empty. Needed.
	Open func(ctx context.Context) (Scratch, error)
	// Key opens the backups. Needed.
	Key *backupkey.Private
	// Signer signs the report: an Ed25519 key, such as that of the manifests. Needed.
	Signer crypto.Signer
	// Snapshot is what is restored. Empty = the newest.
	Snapshot string
	// Random takes any snapshot that is kept, instead of the newest.
	Random bool
	// Restore takes keys and replays tombstones, as in the real thing, into places of the drill's own. Nil = rows only, and
	// no drill where there are tombstones.
	Restore *backup.RestoreOptions
	// Check looks at the restored store as the program would. Its error stands in the report and must hold no personal data. Nil = the report says that there
	// was none.
	Check func(ctx context.Context, s Scratch) error
	// Limit is the longest time that the restore may take to be a success, the recovery time objective. 0 = any.
	Limit time.Duration
	// Now is the clock. Nil = time.Now.
	Now func() time.Time
}

// Report is what a drill found.
type Report struct {
	Passed    bool      `json:"passed"`
	Started   time.Time `json:"started"`
	Ended     time.Time `json:"ended"`
	Restored  float64   `json:"restored_seconds"` // what a recovery takes: from an empty store to the last row
	Limit     float64   `json:"limit_seconds"`    // 0 = none
	Snapshot  string    `json:"snapshot"`
	Number    uint64    `json:"number"`
	Digest    string    `json:"digest"` // SHA-256 of the snapshot's manifest, hexadecimal
	Created   time.Time `json:"created"`
	Builds    int       `json:"builds_on"` // snapshots
	Rows      int64     `json:"rows"`
	Bytes     int64     `json:"bytes"`
	Key       string    `json:"key"` // the id of the key that opened it
	Tables    []Table   `json:"tables"`
	Steps     []Step    `json:"steps"`
	Snapshots int       `json:"snapshots"` // that there were to choose from
}

// Table says how the restored rows of a table compare with the snapshot's.
type Table struct {
	Name     string `json:"name"`
	Rows     int64  `json:"rows"`
	Added    int64  `json:"added"`
	Changed  int64  `json:"changed"`
	Removed  int64  `json:"removed"`
	Reshaped bool   `json:"reshaped"`
}

// Step is one part of a drill.
type Step struct {
	Name    string  `json:"name"` // find, verify, open, restore, compare, integrity, check, time
	Passed  bool    `json:"passed"`
	Seconds float64 `json:"seconds"`
	Fault   string  `json:"fault,omitempty"` // no personal data
}

// Run drills once. The report is returned also when it is red, signed in signed; the error is for what kept the drill from being held, such as a
// wrong option or ctx.
func Run(ctx context.Context, repo *backup.Repository, o *Options) (rep *Report, signed []byte, err error) {
	if o == nil || o.Open == nil || o.Key == nil || o.Signer == nil {
		return nil, nil, errors.New("drill: Options.Open, Key and Signer are needed")
	}
	if _, ok := o.Signer.Public().(ed25519.PublicKey); !ok {
		return nil, nil, errors.New("drill: the signer is not an Ed25519 key")
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	rep = &Report{Started: now().UTC(), Limit: o.Limit.Seconds(), Key: o.Key.Public().ID(), Tables: []Table{}, Steps: []Step{}}
	rep.Passed = true
	step := func(name string, do func() error) bool {
		if !rep.Passed {
			return false
		}
		began := now()
		err := do()
		s := Step{Name: name, Passed: err == nil, Seconds: now().Sub(began).Seconds()}
		if err != nil {
			s.Fault, rep.Passed = err.Error(), false
		}
		rep.Steps = append(rep.Steps, s)
		return err == nil
	}
	var snap backup.Snapshot
	step("find", func() (err error) {
		snap, rep.Snapshots, err = find(ctx, repo, o)
		return err
	})
	rep.Snapshot, rep.Number, rep.Created, rep.Builds, rep.Rows, rep.Bytes = snap.ID, snap.Head.Number, snap.Created, snap.Depth, snap.Rows, snap.Bytes
	rep.Digest = hex.EncodeToString(snap.Head.Digest[:])
	step("verify", func() error {
		found, err := repo.Verify(ctx, &backup.VerifyOptions{Level: backup.Full, Snapshot: snap.ID})
		if err != nil {
			return err
		}
		return found.Err()
	})
	var scratch Scratch
	step("open", func() (err error) {
		scratch, err = o.Open(ctx)
		return err
	})
	began := now()
	step("restore", func() error {
		_, err := repo.Restore(ctx, snap.ID, scratch, o.Key, o.Restore)
		return err
	})
	took := now().Sub(began)
	rep.Restored = took.Seconds()
	step("compare", func() error {
		diff, err := repo.Differs(ctx, snap.ID, scratch, o.Key)
		if err != nil {
			return err
		}
		for _, t := range snap.Tables {
			rep.Tables = append(rep.Tables, Table{Name: t.Name, Rows: t.Rows})
		}
		for _, c := range diff {
			t := Table{Name: c.Table, Added: c.Added, Changed: c.Changed, Removed: c.Removed, Reshaped: c.Reshaped}
			for i := range rep.Tables {
				if rep.Tables[i].Name == c.Table {
					t.Rows = rep.Tables[i].Rows
					rep.Tables[i] = t
				}
			}
		}
		if len(diff) > 0 {
			return fmt.Errorf("drill: %d tables differ from the snapshot", len(diff))
		}
		return nil
	})
	step("integrity", func() error { return scratch.Integrity(ctx) })
	if o.Check != nil {
		step("check", func() error { return o.Check(ctx, scratch) })
	}
	if o.Limit > 0 {
		step("time", func() error {
			if took > o.Limit {
				return errors.New("drill: the restore took longer than the limit")
			}
			return nil
		})
	}
	if scratch != nil {
		if err := scratch.Close(); err != nil {
			return nil, nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	rep.Ended = now().UTC()
	signed, err = sign(rep, o.Signer)
	return rep, signed, err
}

// find chooses the snapshot.
func find(ctx context.Context, repo *backup.Repository, o *Options) (snap backup.Snapshot, n int, err error) {
	all, err := repo.Snapshots(ctx)
	if err != nil {
		return snap, len(all), err
	}
	var kept []backup.Snapshot
	for _, s := range all {
		if o.Snapshot == s.ID {
			return s, len(all), nil
		}
		if s.Condemned.IsZero() {
			kept = append(kept, s)
		}
	}
	if o.Snapshot != "" || len(kept) == 0 {
		return snap, len(all), backup.ErrNotFound
	}
	i := int64(len(kept) - 1)
	if o.Random {
		r, err := rand.Int(rand.Reader, big.NewInt(i+1))
		if err != nil {
			return snap, len(all), err
		}
		i = r.Int64()
	}
	return kept[i], len(all), nil
}

const (
	first     = "crmguard-drill-1\n"
	signature = "signature: "
	maxReport = 16 << 20
)

// sign makes the file of a report: docs/formats/backup.md.
func sign(rep *Report, signer crypto.Signer) ([]byte, error) {
	b, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("drill: %w", err)
	}
	text := first + string(b) + "\n"
	sig, err := signer.Sign(rand.Reader, message(text), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("drill: sign: %w", err)
	}
	return []byte(text + signature + base64.StdEncoding.EncodeToString(sig) + "\n"), nil
}

func message(text string) []byte { return append([]byte("crmguard drill report v1\x00"), text...) }

// Errors of [Verify].
var (
	ErrForged  = errors.New("drill: not a report that this key signed, or changed since")
	ErrVersion = errors.New("drill: a later form of report")
)

// Verify checks the file of a report with the public key of its signer and reads it. A report that is authentic may be red: see Report.Passed. Errors: ErrForged,
// ErrVersion.
func Verify(file []byte, pin ed25519.PublicKey) (*Report, error) {
	text := string(file)
	if len(pin) != ed25519.PublicKeySize || len(text) > maxReport {
		return nil, ErrForged
	}
	if !strings.HasPrefix(text, first) {
		if strings.HasPrefix(text, "crmguard-drill-") {
			return nil, ErrVersion
		}
		return nil, ErrForged
	}
	i := strings.LastIndex(text, "\n"+signature)
	if i < 0 {
		return nil, ErrForged
	}
	body, line := text[:i+1], text[i+1+len(signature):]
	line, ok := strings.CutSuffix(line, "\n")
	sig, err := base64.StdEncoding.Strict().DecodeString(line)
	if !ok || err != nil || base64.StdEncoding.EncodeToString(sig) != line || len(sig) != ed25519.SignatureSize || !ed25519.Verify(pin, message(body), sig) {
		return nil, ErrForged
	}
	d := json.NewDecoder(strings.NewReader(body[len(first):]))
	d.DisallowUnknownFields()
	rep := &Report{}
	if err := d.Decode(rep); err != nil {
		return nil, ErrForged
	}
	return rep, nil
}
