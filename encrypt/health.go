package encrypt

import "time"

// Health is what a Keeper knows of a tenant without asking anybody.
type Health struct {
	KEK        string        // name of the Keeper's KEK
	Loaded     bool          // the tenant's keys are open
	Age        time.Duration // since the KEK last opened them
	ReadsFor   time.Duration // how long they will open if the KEK stays away; 0 = no longer
	WritesFor  time.Duration // the same for sealing
	Failure    error         // why the KEK did not answer last time; nil = it did
	Persons    int           // person keys of the tenant in the cache
	Erasures   uint64        // the erasure number last seen
	Generation uint32        // of the keys that are written
	Renewing   bool          // an older generation is still read
	Epoch      time.Time     // when the current epoch began
}

// Health reports on a tenant, for a status page or an alarm: it asks neither the KEK nor the store.
func (k *Keeper) Health(tenant string) Health {
	h := Health{KEK: k.kek.ID()}
	t, err := k.tenant(tenant)
	if err != nil {
		return h
	}
	t.mu.Lock()
	h.Failure = t.failed
	t.mu.Unlock()
	tk := t.keys.Load()
	if tk == nil {
		return h
	}
	h.Loaded, h.Age = true, k.clock()-tk.asked
	h.ReadsFor = max(0, k.opts.Refresh+k.opts.StaleReads-h.Age)
	h.WritesFor = max(0, k.opts.Refresh+k.opts.StaleWrites-h.Age)
	h.Persons, h.Erasures = k.cache.size(t), t.erasure.Load()
	h.Generation, h.Renewing, h.Epoch = tk.newest(), len(tk.index) > 1, tk.began
	return h
}
