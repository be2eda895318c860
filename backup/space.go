package backup

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/crmguard/crmguard/backup/backupkey"
)

// space is one bucket with a chain of manifests: of data, or of key shards.
type space struct {
	bucket  Bucket
	kind    string
	id      id16
	created time.Time // of the repository
	pin     ed25519.PublicKey
	opts    *Options

	mu    sync.Mutex
	seen  Head     // the newest manifest that this process saw; Options.Head at first
	index *dataKey // of the record indexes, once it was derived
}

func openSpace(ctx context.Context, bucket Bucket, kind string, pin ed25519.PublicKey, opts *Options) (*space, error) {
	s := &space{bucket: bucket, kind: kind, pin: pin, opts: opts}
	if kind == kindData {
		s.seen = opts.Head
	}
	b, err := bucket.Get(ctx, repositoryName, 0, 1<<16)
	if errors.Is(err, ErrNotFound) && opts.Signer != nil {
		b, err = s.create(ctx)
	}
	if err != nil {
		return nil, object(repositoryName, err)
	}
	payload, err := openSigned(magicRepository, b, pin)
	if err != nil {
		return nil, object(repositoryName, err)
	}
	var head repositoryHead
	if err := strictJSON(payload, &head); err != nil {
		return nil, object(repositoryName, err)
	}
	if head.Kind != kind {
		return nil, object(repositoryName, fmt.Errorf("%w: a repository of another kind", ErrTampered))
	}
	s.id, s.created = head.Repository, head.Created
	return s, nil
}

// create makes an empty bucket a repository. One that has manifests but no head lost it.
func (s *space) create(ctx context.Context) ([]byte, error) {
	for _, err := range s.bucket.List(ctx, snapshotPrefix) {
		if err != nil {
			return nil, err
		}
		return nil, ErrTampered
	}
	payload, err := json.Marshal(repositoryHead{Repository: newID(), Kind: s.kind, Created: s.opts.Now().UTC()})
	if err != nil {
		return nil, err
	}
	b, err := signed(magicRepository, payload, s.opts.Signer, s.pin)
	if err != nil {
		return nil, err
	}
	err = s.bucket.Put(ctx, repositoryName, b)
	if errors.Is(err, ErrExists) { // another process was first
		return s.bucket.Get(ctx, repositoryName, 0, 1<<16)
	}
	return b, err
}

// numbers lists the manifests that are there, in order.
func (s *space) numbers(ctx context.Context) ([]uint64, error) {
	var all []uint64
	for o, err := range s.bucket.List(ctx, snapshotPrefix) {
		if err != nil {
			return nil, object(snapshotPrefix, err)
		}
		if n, ok := parseNumber(snapshotPrefix, o.Name); ok {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

// raw reads the bytes of a manifest.
func (s *space) raw(ctx context.Context, number uint64) ([]byte, error) {
	b, err := s.bucket.Get(ctx, manifestName(number), 0, maxManifest+1)
	if err == nil && len(b) > maxManifest {
		err = ErrTampered
	}
	return b, object(manifestName(number), err)
}

// manifest reads and checks one.
func (s *space) manifest(ctx context.Context, number uint64) (*manifest, error) {
	b, err := s.raw(ctx, number)
	if err != nil {
		return nil, err
	}
	return s.check(b, number)
}

// check holds a manifest against the pinned key, this repository, its place and what was seen before.
func (s *space) check(b []byte, number uint64) (*manifest, error) {
	m, err := parseManifest(b, s.pin, number)
	if err == nil && (m.Repository != s.id || m.Kind != s.kind) {
		err = fmt.Errorf("%w: of another repository", ErrTampered)
	}
	if errors.Is(err, ErrKey) {
		err = ErrTampered
	}
	if seen := s.head(); err == nil && number == seen.Number && m.digest != sum32(seen.Digest) {
		err = ErrStale
	}
	return m, object(manifestName(number), err)
}

func (s *space) head() Head {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

func (s *space) saw(m *manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tombstones := max(s.seen.Tombstones, m.Tombstones)
	if m.Number > s.seen.Number {
		s.seen = Head{Number: m.Number, Digest: m.digest}
	}
	s.seen.Tombstones = tombstones
}

// newest reads the last manifest, nil when there is none. ErrStale: one that was seen is gone.
func (s *space) newest(ctx context.Context) (*manifest, error) {
	m, err := s.sound(ctx, 1)
	if m != nil {
		s.saw(m)
	}
	return m, err
}

// sound reads the newest manifest that is not damaged among the last tries; nil when there is none at all.
func (s *space) sound(ctx context.Context, tries int) (m *manifest, err error) {
	numbers, err := s.numbers(ctx)
	if err != nil {
		return nil, err
	}
	if seen := s.head().Number; seen > 0 && !slices.Contains(numbers, seen) {
		return nil, object(manifestName(seen), ErrStale)
	}
	for _, n := range slices.Backward(numbers) {
		if m, err = s.manifest(ctx, n); err == nil {
			return m, nil
		}
		if tries--; tries <= 0 || !errors.Is(err, ErrTampered) {
			return nil, err
		}
	}
	return nil, err
}

// chain yields every manifest from the first to the last, or what is wrong with it. Data has no holes;
// of shards the oldest are gone.
func (s *space) chain(ctx context.Context) iter.Seq2[*manifest, error] {
	return func(yield func(*manifest, error) bool) {
		numbers, err := s.numbers(ctx)
		if err != nil {
			yield(nil, err)
			return
		}
		next := uint64(1)
		if s.kind == kindShards && len(numbers) > 0 {
			next = numbers[0]
		}
		var previous *sum32 // digest of the one before; nil = unknown
		if next == 1 {
			previous = new(sum32)
		}
		for _, n := range numbers {
			if n-next > 1<<16 { // a name that no backup made
				yield(nil, object(manifestName(n), ErrTampered))
				return
			}
			for ; next < n; next++ {
				previous = nil
				if !yield(nil, object(manifestName(next), fmt.Errorf("%w: %w", ErrTampered, ErrNotFound))) {
					return
				}
			}
			next++
			b, err := s.raw(ctx, n)
			var m *manifest
			if err == nil {
				m, err = s.check(b, n)
			}
			if err == nil && previous != nil && m.Previous != *previous && !m.Unread {
				err = object(manifestName(n), fmt.Errorf("%w: not the successor of the one before", ErrTampered))
			}
			if ctx.Err() != nil {
				yield(nil, ctx.Err())
				return
			}
			previous = nil
			if b != nil {
				d := sum32(sha256.Sum256(b))
				previous = &d
			}
			if err != nil {
				m = nil
			}
			if !yield(m, err) {
				return
			}
		}
		if seen := s.head().Number; seen >= next {
			yield(nil, object(manifestName(seen), ErrStale))
		}
	}
}

// sequence reads all manifests that are sound.
func (s *space) sequence(ctx context.Context) (all []*manifest, err error) {
	for m, err := range s.chain(ctx) {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			all = append(all, m)
		}
	}
	return all, nil
}

// needed tells what is to stay whole: the snapshots, oldest first, that are not condemned, and those, condemned or not, that such a one builds on; and until
// when each was promised to be locked, the zero time where it was not.
func needed(all []*manifest, list *prunes) map[id16]time.Time {
	byNumber := map[uint64]*manifest{}
	for _, m := range all {
		byNumber[m.Number] = m
	}
	need := map[id16]time.Time{}
	for _, m := range slices.Backward(all) {
		until, ok := need[m.Snapshot]
		if _, condemned := list.since(m); condemned && !ok {
			continue
		}
		if m.Keep.After(until) {
			until = m.Keep
		}
		need[m.Snapshot] = until
		if p := byNumber[m.Parent]; p != nil && p.digest == m.ParentDigest {
			if have, ok := need[p.Snapshot]; !ok || have.Before(until) {
				need[p.Snapshot] = until
			}
		}
	}
	return need
}

// fetch reads an object that a manifest names and compares it.
func (s *space) fetch(ctx context.Context, o manifestObject) ([]byte, error) {
	b, err := s.bucket.Get(ctx, o.Name, 0, o.Size+1)
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if err == nil && (int64(len(b)) != o.Size || sha256.Sum256(b) != o.SHA256) {
		err = ErrTampered
	}
	return b, object(o.Name, err)
}

// key opens the data key of a snapshot.
func (s *space) key(ctx context.Context, m *manifest, key *backupkey.Private) (*dataKey, error) {
	if key == nil {
		return nil, fmt.Errorf("%w: no private key was given", ErrKey)
	}
	name := keyName(m.Snapshot, key.Public().ID())
	i := slices.IndexFunc(m.Keys, func(o manifestObject) bool { return o.Name == name })
	var b []byte
	var err error
	if i >= 0 {
		b, err = s.fetch(ctx, m.Keys[i])
	} else if b, err = s.bucket.Get(ctx, name, 0, 1<<16); errors.Is(err, ErrNotFound) { // a header that was added later
		err = ErrKey
	}
	if err != nil {
		return nil, object(name, err)
	}
	k, err := openKey(b, key, m)
	return k, object(name, err)
}

// put writes an object once and returns what a manifest says of it.
func (s *space) put(ctx context.Context, name string, b []byte) (manifestObject, error) {
	o := manifestObject{Name: name, Size: int64(len(b)), SHA256: sha256.Sum256(b)}
	return o, object(name, s.bucket.Put(ctx, name, b))
}

// commit completes m, signs it and puts it at the end of the chain.
func (s *space) commit(ctx context.Context, m *manifest) error {
	for {
		numbers, err := s.numbers(ctx)
		if err != nil {
			return err
		}
		if seen := s.head().Number; seen > 0 && !slices.Contains(numbers, seen) {
			return object(manifestName(seen), ErrStale)
		}
		m.Number, m.Previous, m.Unread = 1, sum32{}, false
		if len(numbers) > 0 {
			last := numbers[len(numbers)-1]
			b, err := s.raw(ctx, last)
			if err != nil {
				return err
			}
			m.Number, m.Previous = last+1, sha256.Sum256(b)
			if _, err := s.check(b, last); errors.Is(err, ErrTampered) {
				m.Unread = true
			} else if err != nil {
				return err
			}
		}
		payload, err := json.Marshal(m)
		if err != nil {
			return err
		}
		b, err := signed(magicManifest, payload, s.opts.Signer, s.pin)
		if err != nil {
			return err
		}
		if len(b) > maxManifest {
			return errors.New("backup: the manifest is too large")
		}
		name := manifestName(m.Number)
		err = s.bucket.Put(ctx, name, b)
		if errors.Is(err, ErrExists) { // another writer was faster: go behind it, unless it was this very one
			if there, gerr := s.raw(ctx, m.Number); gerr != nil {
				return gerr
			} else if !bytes.Equal(there, b) {
				continue
			}
			err = nil
		}
		if err != nil {
			return object(name, err)
		}
		m.digest = sha256.Sum256(b)
		s.saw(m)
		return nil
	}
}
