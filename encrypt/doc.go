// Package encrypt seals the personal fields of records so that they can be searched, masked, rotated
// and erased.
//
// A [Codec] compiles the protect tags of a struct; a [Keeper] holds the keys: a KEK that never leaves
// its service wraps one epoch key per tenant, which wraps a random key per person and retention
// class. Every value is AES-256-GCM under a subkey of its person's key and bound to tenant, person,
// type, record, field and class: moved anywhere else it does not open. Destroying a person's keys
// destroys the values in every copy. The formats are written in docs/formats/encrypt.md.
//
// # Tags
//
//	protect:"CLASS[,WORD]..."     or     protect:"-"   (not stored)     or     protect:"nested"
//
// CLASS is public, internal, personal, sensitive or financial. The first two are clear columns; the
// others are always sealed. The words:
//
//	seal                    seal a public or internal field as well
//	clear                   say again that it is a clear column
//	indexed                 lists sort by this clear column or filter on it
//	person=GoField          whose data it is: a field of 16 bytes; default: the record's own person
//	retention=CLASS         ordinary (default), contract, tax, evidence
//	index=KIND:NORMALISER[:BITS]   a blind index; may be said several times
//	unique=exact:NORMALISER        the same, and no two living records may share a term
//	distinct=N              how many values the field can have; below 1,000 an index is refused. Texts and names whose index
//	                        is cut to BITS or leaks must say it
//	leaks=WHAT              equality or fragments: what its indexes may show, see [Codec.Plan]
//	mask=NAME               how a masked value looks
//
// The kinds of index: exact (the whole term), prefixN and suffixN (its first, last N characters: the
// last four digits), ngram (pairs of CJK characters, triples of others: search inside names, opt-in
// because it shows fragments). BITS cuts the tokens, so that several values share one. Pinyin is
// exact:pinyin, by a normaliser that gives all readings. A compound index over several sealed fields is a
// field of its own:
//
//	_ struct{} `protect:"index=exact:text,of=surname+born"`
//
// The stored name is the json name, else the Go name in lower snake case; it is part of every
// ciphertext and must not change. Embedded structs are flattened; nested ones too, with the outer name and _
// before the inner. Strings, integers up to 64 signed bits, bool, time.Time, ids of 16 bytes with
// MarshalText, pointers to these and types named after these are stored as such, []byte only sealed,
// everything else (decimals, slices, maps of custom fields) as JSON. A text type is known by its
// methods Expose() string, ExposedState() uint8 and SetExposed(string, uint8), as [Text] has them; it
// remembers why it shows nothing and is never overwritten by a mask. Slices of such texts and maps of them by
// string are sealed as one value.
//
// # Life of a key
//
// [Keeper.Rotate] begins a new epoch: all keys are rewrapped, no data is touched, and the key service's old
// version ends. [Keeper.Renew], [Codec.Reseal] and [Keeper.Retire] replace person and index keys
// themselves, while reading and writing go on. [Keeper.Erase] blocks a person at once; asked again by a job after a grace ([Keeper.Due]), it destroys what
// [Keeper.Spare] did not take back; joined ids ([Keeper.Join]) go together.
//
// # Errors and outages
//
// Everything that fails to authenticate is [ErrTampered], without a hint why. An erased field is a
// state and no error. When the key service is away, cached keys serve reads and, for a shorter time,
// writes; then [ErrKMSUnavailable]. A missing key is [ErrKeyMissing], never taken for an erasure.
// [Keeper.Health] tells how long there is left.
//
// # Around it
//
// encrypt/keys has what a Keeper stands on, with a store in memory; encrypt/sqlstore keeps keys in SQLite or
// PostgreSQL; encrypt/vault and encrypt/localkek are KEKs; encrypt/normalize has normalisers and
// masks; encrypt/stream seals attachments; encrypt/intake receives from hosts that can only encrypt;
// encrypt/algorithm has the algorithms by level, and says which are refused and why; encrypt/oldtink opens what
// github.com/google/tink/go wrote. encrypttest has the suites for implementations of your own.
//
// # What it does not protect
//
// The length of a value, whether a text is present, what indexes leak ([Codec.Plan]), and which records
// belong to one person are visible to whoever reads the store. Whoever
// controls this process or the KEK's credentials reads what it may read. Memory is not locked, and Go
// cannot promise to wipe keys from it.
package encrypt
