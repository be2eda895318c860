package backup

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/crmguard/crmguard/backup/backupkey"
)

// AddKey lets another key open every snapshot and set of key shards, which private opens, beside the keys that do so already; it returns how many
// headers it wrote. Nothing else is written anew, and nothing is taken away: what an old key opens it goes on opening until the
// snapshot is pruned, see Opens. Later backups are sealed to Options.Recipient. It may be interrupted and called again. Errors: ErrKey, and those
// of Snapshots.
func (r *Repository) AddKey(ctx context.Context, private *backupkey.Private, to *backupkey.Public) (added int, err error) {
	if to == nil {
		return 0, fmt.Errorf("%w: no key to add", ErrKey)
	}
	list, err := r.data.pruned(ctx)
	if err != nil {
		return 0, err
	}
	data, err := r.data.sequence(ctx)
	if err != nil {
		return 0, err
	}
	need := needed(data, list)
	for _, s := range []*space{r.data, r.shards} {
		if s == nil {
			continue
		}
		for m, err := range s.chain(ctx) {
			if err != nil {
				return added, err
			}
			if _, ok := need[m.Snapshot]; !ok && s == r.data {
				continue
			}
			name := keyName(m.Snapshot, to.ID())
			if _, err := s.bucket.Get(ctx, name, 0, 1); err == nil {
				continue
			} else if !errors.Is(err, ErrNotFound) {
				return added, object(name, err)
			}
			key, err := s.key(ctx, m, private)
			if err != nil {
				return added, err
			}
			header, err := sealKey(key, to, s.id, m.Snapshot)
			clear(key[:])
			if err != nil {
				return added, err
			}
			if _, err := s.put(ctx, name, header); err != nil && !errors.Is(err, ErrExists) {
				return added, err
			}
			if until := need[m.Snapshot]; s == r.data && until.After(s.opts.Now()) {
				if err := s.lock(ctx, until, name); err != nil {
					return added, err
				}
			}
			added++
		}
	}
	return added, nil
}

// Opens returns the ids of the snapshots that a key opens, named by backupkey.Public.ID, oldest first, by the headers that lie in the bucket: what a thief of that
// key can read. Errors as of Snapshots.
func (r *Repository) Opens(ctx context.Context, key string) ([]string, error) {
	has := map[string]bool{}
	for o, err := range r.data.bucket.List(ctx, keyPrefix) {
		if err != nil {
			return nil, object(keyPrefix, err)
		}
		has[o.Name] = true
	}
	all, err := r.Snapshots(ctx)
	ids := []string{}
	for _, s := range all {
		if has[keyPrefix+s.ID+"-"+key] {
			ids = append(ids, s.ID)
		}
	}
	return slices.Clip(ids), err
}

// TryKey says whether a key opens a snapshot or, for an empty id, the newest set of key shards; it opens the key headers, of those too that the
// snapshot builds on, and nothing else.
// Errors: ErrKey, ErrNotFound, and those of Restore.
func (r *Repository) TryKey(ctx context.Context, id string, private *backupkey.Private) error {
	s, m := r.data, (*manifest)(nil)
	var err error
	if id != "" {
		m, _, err = r.find(ctx, id)
	} else if newest, nerr := r.data.newest(ctx); nerr != nil {
		err = nerr
	} else if m, err = r.shardSet(ctx, newest); err == nil && m == nil {
		err = fmt.Errorf("%w: no key shards", ErrNotFound)
	}
	if err != nil {
		return err
	}
	if id == "" {
		s = r.shards
	}
	all, err := s.below(ctx, m)
	if err != nil {
		return err
	}
	for _, m := range all {
		key, err := s.key(ctx, m, private)
		if err != nil {
			return err
		}
		clear(key[:])
	}
	return nil
}
