package backup_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
	"github.com/crmguard/crmguard/backup/backuptest"
	"github.com/crmguard/crmguard/backup/blobstore"
)

var (
	signer = backuptest.Signer()
	pin    = signer.Public().(ed25519.PublicKey)
)

func open(t testing.TB, b backup.Bucket, change func(*backup.Options)) *backup.Repository {
	t.Helper()
	o := &backup.Options{Signer: signer, Recipient: backuptest.Key(t).Public()}
	if change != nil {
		change(o)
	}
	r, err := backup.Open(t.Context(), b, pin, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func mustBackup(t testing.TB, r *backup.Repository, s backup.Source, o *backup.BackupOptions) backup.Snapshot {
	t.Helper()
	snap, err := r.Backup(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func verify(t testing.TB, r *backup.Repository, o *backup.VerifyOptions) *backup.Report {
	t.Helper()
	rep, err := r.Verify(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func full(t testing.TB) *backup.VerifyOptions {
	return &backup.VerifyOptions{Level: backup.Full, Key: backuptest.Key(t)}
}

func equal(t testing.TB, want, got *backuptest.Memory) {
	t.Helper()
	if !reflect.DeepEqual(want.Tables, got.Tables) || !reflect.DeepEqual(want.Schema, got.Schema) {
		t.Fatal("restored rows differ")
	}
}

func TestMemoryBucket(t *testing.T) {
	backuptest.TestBucket(t, func(testing.TB) backup.Bucket { return &backuptest.Bucket{} })
}

func TestMemoryStore(t *testing.T) {
	backuptest.TestStore(t, func(testing.TB) backuptest.Store { return backuptest.Rows(3000) },
		func(testing.TB) backuptest.Store { return picky{&backuptest.Memory{}} })
}

// picky refuses the table of the suite that has no schema.
type picky struct{ *backuptest.Memory }

func (p picky) Load(ctx context.Context, r *backup.Reader) error {
	var m backuptest.Memory
	if len(p.Tables) > 0 {
		return backup.ErrNotEmpty
	}
	if err := m.Load(ctx, r); err != nil {
		return err
	}
	for _, t := range m.Tables {
		if strings.HasPrefix(t.Name, "no_such") {
			return errors.New("a table of no schema")
		}
	}
	*p.Memory = m
	return nil
}

func TestRepository(t *testing.T) {
	for name, bucket := range map[string]func(testing.TB) backup.Bucket{
		"memory": func(t testing.TB) backup.Bucket {
			b, err := blobstore.Open(t.Context(), "mem://")
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		"folder": func(t testing.TB) backup.Bucket { return folder(t, t.(*testing.T).TempDir()) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, key := t.Context(), backuptest.Key(t)
			data, shards := bucket(t), bucket(t)
			var last backup.Progress
			r := open(t, data, func(o *backup.Options) {
				o.Shards = shards
				o.Observer = func(p backup.Progress) { last = p }
			})
			if all, err := r.Snapshots(ctx); err != nil || len(all) != 0 {
				t.Fatalf("%v, %v", all, err)
			}
			if _, err := r.Restore(ctx, "", &backuptest.Memory{}, key, nil); !errors.Is(err, backup.ErrNotFound) {
				t.Fatalf("restore of nothing: %v", err)
			}
			large := backuptest.Rows(20_000)
			for i := range large.Tables[0].Rows { // above one segment
				large.Tables[0].Rows[i][4] = noise(i, 900)
			}
			keys := &backuptest.Keys{Records: [][]byte{[]byte("key a"), []byte("key b")}}
			erased := backup.Tombstones{Number: 2, Records: [][]byte{[]byte("tomb b"), []byte("tomb a")}}
			first := mustBackup(t, r, backuptest.Rows(10), nil)
			second := mustBackup(t, r, large, &backup.BackupOptions{Name: "crm", Anchor: []byte("checkpoint"), Keys: keys, Tombstones: erased})
			if second.Head.Number != 2 || second.Name != "crm" || string(second.Anchor) != "checkpoint" || second.Rows != 20_001 ||
				second.Engine != "memory" || second.Versions["crm_schema"] != 3 || len(second.Tables) != 3 || second.Head.Tombstones != 2 {
				t.Fatalf("snapshot: %+v", second)
			}
			if last.Total != 0 || last.Began.IsZero() { // the one before was of another name
				t.Errorf("%+v", last)
			}
			if last.Rows < second.Rows || last.Stored < second.Stored {
				t.Fatalf("progress: %+v", last)
			}
			all, err := r.Snapshots(ctx)
			if err != nil || !reflect.DeepEqual(all, []backup.Snapshot{first, second}) {
				t.Fatalf("%+v, %v", all, err)
			}
			// Another process, which only reads.
			r, err = backup.Open(ctx, data, pin, &backup.Options{Shards: shards, Head: second.Head})
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range []*backup.VerifyOptions{nil, {Level: backup.Full}, full(t)} {
				rep := verify(t, r, o)
				if rep.Err() != nil || rep.Snapshots != 2 || rep.Loose != 0 || !rep.Anchored || rep.Opened != (o != nil && o.Key != nil) {
					t.Fatalf("%+v", rep)
				}
			}
			var got backuptest.Memory
			var gotKeys backuptest.Keys
			var order []string
			snap, err := r.Restore(ctx, "", &got, key, &backup.RestoreOptions{Keys: &gotKeys,
				Tombstones: func(_ context.Context, l backup.Tombstones) error {
					if len(gotKeys.Records) != 2 || len(got.Tables) != 0 {
						t.Error("tombstones are not between keys and rows")
					}
					for _, r := range l.Records {
						order = append(order, string(r))
					}
					return nil
				}})
			if err != nil || snap.ID != second.ID {
				t.Fatal(snap.ID, err)
			}
			equal(t, large, &got)
			if fmt.Sprint(order) != "[tomb a tomb b]" || !reflect.DeepEqual(gotKeys.Records, keys.Records) {
				t.Fatalf("tombstones %v, keys %q", order, gotKeys.Records)
			}
			got = backuptest.Memory{}
			if _, err := r.Restore(ctx, first.ID, &got, key, nil); !errors.Is(err, backup.ErrReplay) {
				t.Fatalf("an old snapshot without replay: %v", err)
			}
			none := &backup.RestoreOptions{Tombstones: func(context.Context, backup.Tombstones) error { return nil }}
			if _, err := r.Restore(ctx, first.ID, &got, key, none); err != nil {
				t.Fatal(err)
			}
			equal(t, backuptest.Rows(10), &got)
			if _, err := r.Restore(ctx, strings.Repeat("0", 32), &backuptest.Memory{}, key, none); !errors.Is(err, backup.ErrNotFound) {
				t.Fatalf("no such snapshot: %v", err)
			}
			if _, err := r.Backup(ctx, large, nil); !errors.Is(err, backup.ErrKey) {
				t.Fatalf("backup by a reader: %v", err)
			}
			if err := r.PutTombstones(ctx, erased); !errors.Is(err, backup.ErrKey) {
				t.Fatalf("tombstones by a reader: %v", err)
			}
		})
	}
}

func folder(t testing.TB, dir string) backup.Bucket {
	t.Helper()
	b, err := blobstore.Open(t.Context(), (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// noise does not compress, and is alike on each run.
func noise(seed, n int) []byte {
	b := make([]byte, n)
	x := uint64(seed)*2654435761 + 88172645463325252
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// sample is a repository with two snapshots of several segments, shards and tombstones.
func sample(t testing.TB) (data, shards *backuptest.Bucket, head backup.Head) {
	t.Helper()
	data, shards = &backuptest.Bucket{}, &backuptest.Bucket{}
	r := open(t, data, func(o *backup.Options) { o.Shards = shards })
	m := backuptest.Rows(21)
	for i := range m.Tables[0].Rows {
		m.Tables[0].Rows[i][4] = noise(i, 450_000)
	}
	o := &backup.BackupOptions{Keys: &backuptest.Keys{Records: [][]byte{noise(1, 100), noise(2, 100)}}, Tombstones: backup.Tombstones{Number: 1, Records: [][]byte{{1}}}}
	mustBackup(t, r, backuptest.Rows(50), o)
	return data, shards, mustBackup(t, r, m, o).Head
}

func list(t testing.TB, b backup.Bucket) (names []string) {
	t.Helper()
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, o.Name)
	}
	return names
}

func read(t testing.TB, b backup.Bucket, name string) []byte {
	t.Helper()
	d, err := b.Get(t.Context(), name, 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestTampering changes every object in every way: Verify and Restore must notice each time.
func TestTampering(t *testing.T) {
	data, shards, head := sample(t)
	replay := &backup.RestoreOptions{Keys: &backuptest.Keys{}, Tombstones: func(context.Context, backup.Tombstones) error { return nil }}
	checks := 0
	check := func(what string, d, s *backuptest.Bucket, needed bool, named ...string) {
		t.Helper()
		r, err := backup.Open(t.Context(), d, pin, &backup.Options{Shards: s, Head: head})
		if err != nil {
			if !errors.Is(err, backup.ErrTampered) && !errors.Is(err, backup.ErrKey) && !errors.Is(err, backup.ErrNotFound) && !errors.Is(err, backup.ErrVersion) {
				t.Errorf("%s: %v", what, err)
			}
			return
		}
		levels := []*backup.VerifyOptions{{Level: backup.Full}}
		if checks++; checks%8 == 0 || needed { // what digests find, opening finds too
			levels = append(levels, full(t))
		}
		for _, o := range levels {
			rep := verify(t, r, o)
			found := false
			for _, f := range rep.Faults {
				for _, n := range named {
					found = found || f.Object == n
				}
			}
			if !found || rep.Err() == nil || rep.Opened {
				t.Errorf("%s: verify (key: %v) found %v", what, o.Key != nil, rep.Faults)
			}
		}
		if !needed {
			return
		}
		var into backuptest.Memory
		if _, err := r.Restore(t.Context(), "", &into, backuptest.Key(t), replay); err == nil {
			t.Errorf("%s: restored", what)
		} else if len(into.Tables) > 0 {
			t.Errorf("%s: rows stayed", what)
		}
	}
	for which, b := range map[string]*backuptest.Bucket{"data": data, "shards": shards} {
		prefix := map[string]string{"data": "", "shards": "shards:"}[which]
		names := list(t, b)
		with := func(change func(*backuptest.Bucket)) (d, s *backuptest.Bucket) {
			d, s = data.Clone(), shards.Clone()
			change(map[string]*backuptest.Bucket{"data": d, "shards": s}[which])
			return d, s
		}
		for _, name := range names {
			whole := read(t, b, name)
			named := prefix + name
			also := []string{named}
			if strings.HasPrefix(name, "tombstones/") {
				also = append(also, "tombstones/")
			}
			places := []int{0, 9, 13, 20, 30, 60, len(whole) / 2, len(whole) - 13, len(whole) - 1}
			if testing.Short() {
				places = []int{len(whole) / 2}
			}
			for _, at := range places {
				if at < 0 || at >= len(whole) {
					continue
				}
				d, s := with(func(b *backuptest.Bucket) {
					c := bytes.Clone(whole)
					c[at] ^= 1
					b.Set(name, c)
				})
				check(fmt.Sprintf("%s: flip byte %d", named, at), d, s, false, also...)
			}
			cuts := []int{0, len(whole) / 2, len(whole) - 1}
			if testing.Short() {
				cuts = cuts[2:]
			}
			for _, n := range cuts {
				d, s := with(func(b *backuptest.Bucket) { b.Set(name, whole[:n]) })
				check(fmt.Sprintf("%s: cut to %d", named, n), d, s, false, also...)
			}
			d, s := with(func(b *backuptest.Bucket) { b.Set(name, append(bytes.Clone(whole), 0)) })
			check(named+": one byte more", d, s, false, also...)
			d, s = with(func(b *backuptest.Bucket) {
				if err := b.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			})
			if !strings.HasPrefix(name, "snapshots/0000000000000001") || which == "data" { // of shards the oldest may be gone
				check(named+": deleted", d, s, false, also...)
			}
			for i, other := range names {
				if other != name && (!testing.Short() || i == 0) {
					d, s := with(func(b *backuptest.Bucket) { b.Set(name, read(t, b, other)) })
					check(named+": replaced by "+other, d, s, false, also...)
				}
			}
		}
	}
	// What the newest snapshot needs must also stop its restore, and leave nothing.
	for _, name := range list(t, data) {
		b := read(t, data, name)
		if len(b) < 1<<20 && !strings.HasPrefix(name, "tombstones/") && !strings.HasSuffix(name, "2") {
			continue
		}
		d := data.Clone()
		b[len(b)/2] ^= 1
		d.Set(name, b)
		named := []string{name, "tombstones/"}
		if strings.HasPrefix(name, "keys/") || len(b) < 1<<20 && strings.HasPrefix(name, "segments/") {
			continue
		}
		check(name+": flipped before a restore", d, shards.Clone(), true, named...)
	}
}

// TestSwaps exchanges objects that are each authentic.
func TestSwaps(t *testing.T) {
	data, shards, head := sample(t)
	var segments []string
	for _, n := range list(t, data) {
		if strings.HasPrefix(n, "segments/") {
			segments = append(segments, n)
		}
	}
	if len(segments) < 3 { // two of them of one snapshot
		t.Fatalf("%d segments", len(segments))
	}
	for i := range segments {
		for k := i + 1; k < len(segments); k++ {
			d := data.Clone()
			d.Set(segments[i], read(t, data, segments[k]))
			d.Set(segments[k], read(t, data, segments[i]))
			r := open(t, d, func(o *backup.Options) { o.Shards, o.Head = shards, head })
			if rep := verify(t, r, full(t)); len(rep.Faults) < 2 {
				t.Errorf("swap %d and %d: %v", i, k, rep.Faults)
			}
		}
	}
}

func TestRollback(t *testing.T) {
	data, shards, head := sample(t)
	drop := func(b *backuptest.Bucket, names ...string) *backuptest.Bucket {
		b = b.Clone()
		for _, n := range names {
			b.Delete(t.Context(), n)
		}
		return b
	}
	last, list1 := "snapshots/0000000000000002", "tombstones/0000000000000001"
	replay := &backup.RestoreOptions{Keys: &backuptest.Keys{}, Tombstones: func(context.Context, backup.Tombstones) error { return nil }}
	for name, c := range map[string]struct {
		data, shards *backuptest.Bucket
		head         backup.Head
	}{
		"newest snapshot gone":       {drop(data, last), shards, head},
		"tombstone list gone":        {drop(data, list1), shards, backup.Head{}},
		"tombstone list older":       {data, shards, backup.Head{Tombstones: 2}},
		"newest shards gone":         {data, drop(shards, last), backup.Head{}},
		"another snapshot in place":  {data, shards, backup.Head{Number: 2, Digest: [32]byte{1}}},
		"a snapshot not yet written": {data, shards, backup.Head{Number: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, c.data, func(o *backup.Options) { o.Shards, o.Head = c.shards, c.head })
			if _, err := r.Restore(t.Context(), "", &backuptest.Memory{}, backuptest.Key(t), replay); !errors.Is(err, backup.ErrStale) {
				t.Errorf("restore: got %v, want ErrStale", err)
			}
			if rep := verify(t, r, nil); !errors.Is(rep.Err(), backup.ErrStale) || rep.Anchored {
				t.Errorf("verify: %+v", rep)
			}
		})
	}
	t.Run("without a pinned head", func(t *testing.T) {
		r := open(t, drop(data, last), func(o *backup.Options) { o.Shards = shards })
		if rep := verify(t, r, nil); rep.Anchored {
			t.Error("anchored by nothing")
		}
	})
	t.Run("by the process that saw it", func(t *testing.T) {
		b := data.Clone()
		r := open(t, b, func(o *backup.Options) { o.Shards = shards.Clone() })
		snap := mustBackup(t, r, backuptest.Rows(3), nil)
		b.Delete(t.Context(), fmt.Sprintf("snapshots/%016d", snap.Head.Number))
		if _, err := r.Backup(t.Context(), backuptest.Rows(3), nil); !errors.Is(err, backup.ErrStale) {
			t.Errorf("got %v, want ErrStale", err)
		}
	})
}

func TestKeys(t *testing.T) {
	ctx := t.Context()
	data, shards, _ := sample(t)
	other, err := backupkey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, data, func(o *backup.Options) { o.Shards = shards })
	replay := &backup.RestoreOptions{Tombstones: func(context.Context, backup.Tombstones) error { return nil }}
	for name, key := range map[string]*backupkey.Private{"wrong": other, "missing": nil} {
		if _, err := r.Restore(ctx, "", &backuptest.Memory{}, key, replay); !errors.Is(err, backup.ErrKey) {
			t.Errorf("%s key: %v", name, err)
		}
		if err := r.RestoreKeys(ctx, &backuptest.Keys{}, key); !errors.Is(err, backup.ErrKey) {
			t.Errorf("%s key: %v", name, err)
		}
	}
	if rep := verify(t, r, &backup.VerifyOptions{Level: backup.Full, Key: other}); !errors.Is(rep.Err(), backup.ErrKey) || rep.Opened {
		t.Errorf("verify by a wrong key: %+v", rep)
	}
	_, stranger, _ := ed25519.GenerateKey(nil)
	strangerPin := stranger.Public().(ed25519.PublicKey)
	for name, c := range map[string]struct {
		pin  ed25519.PublicKey
		opts *backup.Options
	}{
		"another pin":        {strangerPin, nil},
		"another signer":     {pin, &backup.Options{Signer: stranger}},
		"a foreign signer":   {strangerPin, &backup.Options{Signer: stranger}},
		"no pin":             {nil, nil},
		"swapped buckets":    {pin, &backup.Options{Shards: data}},
		"a short pinned key": {pin[:31], nil},
	} {
		if _, err := backup.Open(ctx, data, c.pin, c.opts); !errors.Is(err, backup.ErrKey) && !errors.Is(err, backup.ErrTampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A snapshot of another repository of the same owner.
	foreign := &backuptest.Bucket{}
	mustBackup(t, open(t, foreign, nil), backuptest.Rows(3), nil)
	mixed := foreign.Clone()
	for _, n := range list(t, data) {
		if strings.HasPrefix(n, "snapshots/") {
			mixed.Set(n, read(t, data, n))
		}
	}
	if _, err := open(t, mixed, nil).Restore(ctx, "", &backuptest.Memory{}, backuptest.Key(t), replay); !errors.Is(err, backup.ErrTampered) {
		t.Errorf("foreign snapshot: %v", err)
	}
	if _, err := backup.Open(ctx, &backuptest.Bucket{}, pin, nil); !errors.Is(err, backup.ErrNotFound) {
		t.Errorf("no repository: %v", err)
	}
	headless := data.Clone()
	headless.Delete(ctx, "repository")
	if _, err := backup.Open(ctx, headless, pin, &backup.Options{Signer: signer}); !errors.Is(err, backup.ErrTampered) {
		t.Errorf("a repository that lost its head: %v", err)
	}
}

func TestLaterVersion(t *testing.T) {
	data, shards, _ := sample(t)
	for _, n := range list(t, data) {
		b := read(t, data, n)
		b[11] = 3
		d := data.Clone()
		d.Set(n, b)
		_, err := backup.Open(t.Context(), d, pin, &backup.Options{Shards: shards})
		if err == nil {
			r := open(t, d, func(o *backup.Options) { o.Shards = shards })
			err = verify(t, r, nil).Err()
		}
		signedObject := !strings.HasPrefix(n, "segments/") && !strings.HasPrefix(n, "keys/")
		if signedObject && !errors.Is(err, backup.ErrVersion) {
			t.Errorf("%s of version 3: %v", n, err)
		}
	}
}

// TestFullBucket refuses each put in turn: no manifest, and the next run works.
func TestFullBucket(t *testing.T) {
	m := backuptest.Rows(40)
	for i := range m.Tables[0].Rows {
		m.Tables[0].Rows[i][4] = noise(i, 450_000)
	}
	keys := &backuptest.Keys{Records: [][]byte{{1}}}
	step := 1
	if testing.Short() {
		step = 3
	}
	for fail := 0; ; fail += step {
		data, shards := &backuptest.Bucket{}, &backuptest.Bucket{}
		r := open(t, data, func(o *backup.Options) { o.Shards = shards })
		var n atomic.Int64
		refuse := func(string, []byte) error {
			if n.Add(1)-1 == int64(fail) {
				return backup.ErrFull
			}
			return nil
		}
		data.BeforePut, shards.BeforePut = refuse, refuse
		_, err := r.Backup(t.Context(), m, &backup.BackupOptions{Keys: keys, Tombstones: backup.Tombstones{Number: 1, Records: [][]byte{{1}}}})
		data.BeforePut, shards.BeforePut = nil, nil
		if err == nil {
			if fail < 6 {
				t.Fatalf("only %d puts", fail)
			}
			return
		}
		var oe *backup.ObjectError
		if !errors.Is(err, backup.ErrFull) || !errors.As(err, &oe) {
			t.Fatalf("put %d: %v", fail, err)
		}
		if all, err := r.Snapshots(t.Context()); err != nil || len(all) != 0 {
			t.Fatalf("put %d: %v, %v", fail, all, err)
		}
		mustBackup(t, r, m, &backup.BackupOptions{Keys: keys})
		if rep := verify(t, r, full(t)); rep.Err() != nil {
			t.Fatalf("put %d, after the next run: %v", fail, rep.Faults)
		}
	}
}

func TestSweep(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	data, shards := &backuptest.Bucket{Now: clock}, &backuptest.Bucket{Now: clock}
	r := open(t, data, func(o *backup.Options) { o.Now, o.Shards = clock, shards })
	keys := &backup.BackupOptions{Keys: &backuptest.Keys{Records: [][]byte{{1}}}}
	mustBackup(t, r, backuptest.Rows(10), keys)
	data.BeforePut = func(name string, _ []byte) error {
		if strings.HasPrefix(name, "snapshots/") {
			return errors.New("killed")
		}
		return nil
	}
	if _, err := r.Backup(t.Context(), backuptest.Rows(10), nil); err == nil {
		t.Fatal("committed")
	}
	data.BeforePut = nil
	if rep := verify(t, r, full(t)); rep.Err() != nil || rep.Loose != 3 {
		t.Fatalf("%+v", rep)
	}
	if n, err := r.Sweep(t.Context()); n != 0 || err != nil {
		t.Fatalf("within the grace: %d, %v", n, err)
	}
	now = now.Add(25 * time.Hour)
	for i := range uint64(3) {
		if err := r.PutTombstones(t.Context(), backup.Tombstones{Number: i + 1, Records: [][]byte{{byte(i + 1)}}}); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(25 * time.Hour)
	if n, err := r.Sweep(t.Context()); n != 5 || err != nil { // key header, segment, index, two lists
		t.Fatalf("swept %d, %v", n, err)
	}
	if rep := verify(t, r, full(t)); rep.Err() != nil || rep.Loose != 0 {
		t.Fatalf("%+v", rep)
	}
	// With a manifest missing it is not known what is needed.
	mustBackup(t, r, backuptest.Rows(10), keys)
	mustBackup(t, r, backuptest.Rows(10), keys)
	now = now.Add(25 * time.Hour)
	hole := data.Clone()
	hole.Delete(t.Context(), "snapshots/0000000000000002")
	before := len(list(t, hole))
	broken := open(t, hole, func(o *backup.Options) { o.Now, o.Shards = clock, shards })
	if _, err := broken.Sweep(t.Context()); !errors.Is(err, backup.ErrTampered) {
		t.Fatalf("sweep with a hole: %v", err)
	}
	if after := len(list(t, hole)); after != before {
		t.Fatalf("%d objects of %d are left", after, before)
	}
}

func TestOldShardsGo(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	data, shards := &backuptest.Bucket{Now: clock}, &backuptest.Bucket{Now: clock}
	r := open(t, data, func(o *backup.Options) { o.Now, o.Shards = clock, shards })
	for day := range 12 {
		now = now.Add(24 * time.Hour)
		keys := &backuptest.Keys{Records: [][]byte{fmt.Appendf(nil, "living"), fmt.Appendf(nil, "day %d", day)}}
		mustBackup(t, r, backuptest.Rows(3), &backup.BackupOptions{Keys: keys})
		if rep := verify(t, r, full(t)); rep.Err() != nil || rep.Loose != 0 {
			t.Fatalf("day %d: %+v", day, rep)
		}
	}
	n := map[string]int{}
	for _, name := range list(t, shards) {
		n[strings.SplitN(name, "/", 2)[0]]++
	}
	if !reflect.DeepEqual(n, map[string]int{"repository": 1, "snapshots": 8, "keys": 8, "segments": 8}) {
		t.Fatalf("left: %v", n)
	}
	var keys backuptest.Keys
	if err := r.RestoreKeys(t.Context(), &keys, backuptest.Key(t)); err != nil || string(keys.Records[1]) != "day 11" {
		t.Fatalf("%q, %v", keys.Records, err)
	}
	if all, err := r.Snapshots(t.Context()); err != nil || len(all) != 12 {
		t.Fatalf("%d snapshots, %v", len(all), err)
	}
}

func TestTombstones(t *testing.T) {
	ctx := t.Context()
	r := open(t, &backuptest.Bucket{}, nil)
	one := backup.Tombstones{Number: 5, Records: [][]byte{{2}, {1}}}
	for range 2 {
		if err := r.PutTombstones(ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		list backup.Tombstones
		want error
	}{
		"lower number":    {backup.Tombstones{Number: 4}, backup.ErrStale},
		"same number":     {backup.Tombstones{Number: 5, Records: [][]byte{{3}}}, backup.ErrExists},
		"no number":       {backup.Tombstones{}, nil},
		"an empty record": {backup.Tombstones{Number: 6, Records: [][]byte{{}}}, nil},
		"a huge record":   {backup.Tombstones{Number: 6, Records: [][]byte{make([]byte, 1<<20+1)}}, nil},
	} {
		if err := r.PutTombstones(ctx, c.list); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
}

func TestTwoWriters(t *testing.T) {
	b := &backuptest.Bucket{}
	a, c := open(t, b, nil), open(t, b, nil)
	errs := make(chan error, 8)
	for i := range 8 {
		go func() {
			_, err := []*backup.Repository{a, c}[i%2].Backup(t.Context(), backuptest.Rows(100), nil)
			errs <- err
		}()
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if rep := verify(t, a, full(t)); rep.Err() != nil || rep.Snapshots != 8 || rep.Loose != 0 {
		t.Fatalf("%+v", rep)
	}
}

// TestBadSources dumps wrongly in every way that the compiler allows.
func TestBadSources(t *testing.T) {
	schema := backup.Schema{Engine: "memory"}
	for name, dump := range map[string]func(*backup.Writer) error{
		"nothing":            func(*backup.Writer) error { return nil },
		"table first":        func(w *backup.Writer) error { return w.Table(backup.Table{Name: "a", Columns: []string{"x"}}) },
		"row first":          func(w *backup.Writer) error { return w.Row(int64(1)) },
		"no engine":          func(w *backup.Writer) error { return w.Schema(backup.Schema{}) },
		"two schemas":        func(w *backup.Writer) error { return errors.Join(w.Schema(schema), w.Schema(schema)) },
		"unnamed table":      func(w *backup.Writer) error { w.Schema(schema); return w.Table(backup.Table{Columns: []string{"x"}}) },
		"no columns":         func(w *backup.Writer) error { w.Schema(schema); return w.Table(backup.Table{Name: "a"}) },
		"row of no table":    func(w *backup.Writer) error { w.Schema(schema); return w.Row() },
		"swallowed an error": func(w *backup.Writer) error { w.Schema(schema); w.Row(int64(1)); return nil },
		"a table twice": func(w *backup.Writer) error {
			w.Schema(schema)
			w.Table(backup.Table{Name: "a", Columns: []string{"x"}})
			return w.Table(backup.Table{Name: "a", Columns: []string{"x"}})
		},
		"too many values": func(w *backup.Writer) error {
			w.Schema(schema)
			w.Table(backup.Table{Name: "a", Columns: []string{"x"}})
			return w.Row(int64(1), int64(2))
		},
		"an unknown type": func(w *backup.Writer) error {
			w.Schema(schema)
			w.Table(backup.Table{Name: "a", Columns: []string{"x"}})
			return w.Row(struct{ Secret string }{"secret"})
		},
		"a huge row": func(w *backup.Writer) error {
			w.Schema(schema)
			w.Table(backup.Table{Name: "a", Columns: []string{"x"}})
			return w.Row(make([]byte, 65<<20))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := open(t, &backuptest.Bucket{}, nil)
			_, err := r.Backup(t.Context(), sourceFunc(dump), nil)
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Fatalf("got %v", err)
			}
			if all, err := r.Snapshots(t.Context()); err != nil || len(all) > 0 {
				t.Fatalf("%v, %v", all, err)
			}
		})
	}
}

type sourceFunc func(*backup.Writer) error

func (f sourceFunc) Dump(_ context.Context, w *backup.Writer) error { return f(w) }

type sinkFunc func(*backup.Reader) error

func (f sinkFunc) Load(_ context.Context, r *backup.Reader) error { return f(r) }

func TestSinkThatStops(t *testing.T) {
	r := open(t, &backuptest.Bucket{}, nil)
	mustBackup(t, r, backuptest.Rows(5000), nil)
	for name, load := range map[string]func(*backup.Reader) error{
		"at once":       func(*backup.Reader) error { return nil },
		"after a table": func(r *backup.Reader) error { _, err := r.Next(); return err },
		"within a table": func(r *backup.Reader) error {
			r.Next()
			for range r.Rows() {
				break
			}
			return nil
		},
	} {
		if _, err := r.Restore(t.Context(), "", sinkFunc(load), backuptest.Key(t), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	skip := sinkFunc(func(r *backup.Reader) error {
		for {
			if _, err := r.Next(); err != nil {
				if err.Error() == "EOF" {
					return nil
				}
				return err
			}
		}
	})
	if _, err := r.Restore(t.Context(), "", skip, backuptest.Key(t), nil); err != nil {
		t.Errorf("a sink that passes over rows: %v", err)
	}
}
