package backup

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/crmguard/crmguard/backup/policy"
)

const (
	formatVersion   = 1 // of all objects but
	snapshotVersion = 2 // manifests and segments, of which version 1 is read too
	magicSize       = 8
	signedHead      = magicSize + 4 + 16 + ed25519.SignatureSize // of a signed object, before its payload

	magicRepository = "CGBKREPO"
	magicManifest   = "CGBKMANI"
	magicTombstones = "CGBKTOMB"
	magicPrunes     = "CGBKPRUN"
	magicSegment    = "CGBKSEGM"
	magicSegmentEnd = "CGBKSEGE"
	magicKeyHeader  = "CGBKKEYH"

	maxManifest   = 64 << 20
	maxTombstones = 1 << 30
	maxAnchor     = 64 << 10
	maxRecord     = 1 << 20

	// The algorithms of version 1.
	cipherName      = "AES-256-GCM"
	compressionName = "zstd"
	digestName      = "HMAC-SHA-256"

	kindData   = "data"   // rows of a source
	kindShards = "shards" // keys of persons

	repositoryName   = "repository"
	snapshotPrefix   = "snapshots/"
	segmentPrefix    = "segments/"
	keyPrefix        = "keys/"
	tombstonesPrefix = "tombstones/"
	prunesPrefix     = "prunes/"
)

// id16 is a random id that is hexadecimal in names and JSON.
type id16 [16]byte

func newID() id16 {
	var id id16
	rand.Read(id[:])
	return id
}

func (id id16) String() string               { return hex.EncodeToString(id[:]) }
func (id id16) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

func (id *id16) UnmarshalText(b []byte) error { return unhex(id[:], b) }

// sum32 is a SHA-256 digest or a MAC.
type sum32 [32]byte

func (s sum32) MarshalText() ([]byte, error)  { return []byte(hex.EncodeToString(s[:])), nil }
func (s *sum32) UnmarshalText(b []byte) error { return unhex(s[:], b) }

func unhex(dst, text []byte) error {
	if len(text) != 2*len(dst) || !bytes.Equal(bytes.ToLower(text), text) {
		return errMalformed
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return errMalformed
	}
	return nil
}

// errMalformed is for what is authentic and yet not as the format says.
var errMalformed = fmt.Errorf("%w: malformed", ErrTampered)

// repositoryHead is the payload of the object "repository".
type repositoryHead struct {
	Repository id16      `json:"repository"`
	Kind       string    `json:"kind"`
	Created    time.Time `json:"created"`
}

// manifest is the payload of a manifest.
type manifest struct {
	Repository  id16             `json:"repository"`
	Kind        string           `json:"kind"`
	Number      uint64           `json:"number"`
	Previous    sum32            `json:"previous"` // digest of manifest Number-1; zero for the first
	Snapshot    id16             `json:"snapshot"`
	Name        string           `json:"name"`
	Created     time.Time        `json:"created"`
	Engine      string           `json:"engine"`
	Versions    map[string]int64 `json:"versions"`
	Tables      []manifestTable  `json:"tables"`
	Cipher      string           `json:"cipher"`
	Compression string           `json:"compression"`
	Digest      string           `json:"digest"`
	Commitment  sum32            `json:"commitment"` // of the data key
	Keys        []manifestObject `json:"keys"`
	Segments    []manifestObject `json:"segments"`
	Anchor      []byte           `json:"anchor"`
	Tombstones  uint64           `json:"tombstones"` // number of the list; 0 = none
	Shards      uint64           `json:"shards"`     // number of the shard set; 0 = none

	// Of version 2.
	Parent       uint64           `json:"parent"` // number of the snapshot that this one builds on; 0 = full
	ParentDigest sum32            `json:"parent_digest"`
	Depth        uint32           `json:"depth"`
	Repeats      uint64           `json:"repeats"` // number of the snapshot that this one has the content of
	Index        []manifestObject `json:"index"`
	IndexKey     []byte           `json:"index_key"`
	Part         id16             `json:"part,omitzero"`   // set: only there to be built on, and the id that its index segments are sealed for
	Keep         time.Time        `json:"keep,omitzero"`   // until when its objects are locked
	Unread       bool             `json:"unread,omitzero"` // manifest Number-1 was damaged when this one was written: Previous is of what lay there
	Anomalies    []policy.Anomaly `json:"anomalies"`

	digest  sum32  // of the whole object
	version uint32 // of its format
}

type manifestTable struct {
	Name   string `json:"name"`
	Rows   int64  `json:"rows"`  // after a restore
	Bytes  int64  `json:"bytes"` // that the snapshot holds
	Digest sum32  `json:"digest"`

	// Of version 2.
	Whole   bool    `json:"whole"`
	Held    int64   `json:"held"` // rows that the snapshot holds
	Packed  int64   `json:"packed"`
	Added   int64   `json:"added"`
	Changed int64   `json:"changed"`
	Removed int64   `json:"removed"`
	State   state64 `json:"state"`
	Seq     int64   `json:"seq"`

	compared bool // while it is written: row by row with the snapshot before
}

// objects returns everything that the snapshot itself consists of.
func (m *manifest) objects() []manifestObject { return slices.Concat(m.Keys, m.Segments, m.Index) }

type manifestObject struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 sum32  `json:"sha256"`
}

func (m *manifest) stored() int64 {
	var n int64
	for _, o := range m.objects() {
		n += o.Size
	}
	return n
}

// rows counts those of all tables, after a restore.
func (m *manifest) rows() int64 {
	var n int64
	for i := range m.Tables {
		n += m.Tables[i].Rows
	}
	return n
}

func noAnomalies() []policy.Anomaly { return []policy.Anomaly{} }

// partial says that a snapshot is the part of one that was interrupted.
func (m *manifest) partial() bool { return m.Part != id16{} }

// indexID is what the segments of the record index are sealed for. Those of a part have their own, for the snapshot that was interrupted may have
// stored some under its id.
func (m *manifest) indexID() id16 {
	if m.partial() {
		return m.Part
	}
	return m.Snapshot
}

func (m *manifest) snapshot() Snapshot {
	s := Snapshot{
		ID: m.Snapshot.String(), Head: Head{Number: m.Number, Digest: m.digest, Tombstones: m.Tombstones}, Name: m.Name,
		Created: m.Created, Engine: m.Engine, Versions: m.Versions, Stored: m.stored(), Anchor: m.Anchor,
		Parent: m.Parent, Depth: int(m.Depth), Repeats: m.Repeats, Anomalies: m.Anomalies, Locked: m.Keep,
	}
	if len(s.Anomalies) == 0 {
		s.Anomalies = nil
	}
	for _, t := range m.Tables {
		s.Tables = append(s.Tables, Table{Name: t.Name, Rows: t.Rows, Bytes: t.Bytes})
		s.Rows += t.Rows
		s.Bytes += t.Bytes
	}
	return s
}

// name is where the manifest lies.
func manifestName(number uint64) string { return fmt.Sprintf("%s%016d", snapshotPrefix, number) }

func tombstonesName(number uint64) string { return fmt.Sprintf("%s%016d", tombstonesPrefix, number) }

func prunesName(number uint64) string { return fmt.Sprintf("%s%016d", prunesPrefix, number) }

// parseNumber reads the number of a name that one of those above made.
func parseNumber(prefix, name string) (uint64, bool) {
	if len(name) != len(prefix)+16 {
		return 0, false
	}
	var n uint64
	for _, c := range []byte(name[len(prefix):]) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, n > 0
}

func keyName(snapshot id16, recipient string) string {
	return keyPrefix + snapshot.String() + "-" + recipient
}

// pinID names a signing key in the objects it signed.
func pinID(pin ed25519.PublicKey) (id [16]byte) {
	sum := sha256.Sum256(append([]byte("crmguard backup signer v1\x00"), pin...))
	copy(id[:], sum[:])
	return id
}

// signed makes a signed object.
func signed(magic string, payload []byte, signer crypto.Signer, pin ed25519.PublicKey) ([]byte, error) {
	b := make([]byte, 0, signedHead+len(payload))
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, newestVersion(magic))
	id := pinID(pin)
	b = append(b, id[:]...)
	sig, err := signer.Sign(rand.Reader, message(b, payload), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("backup: sign: %w", err)
	}
	if len(sig) != ed25519.SignatureSize || !ed25519.Verify(pin, message(b, payload), sig) {
		return nil, fmt.Errorf("%w: the signer is not the pinned one", ErrKey)
	}
	b = append(b, sig...)
	return append(b, payload...), nil
}

// newestVersion is the version in which signed objects of a kind are written, and up to which they are read.
func newestVersion(magic string) uint32 {
	if magic == magicManifest {
		return snapshotVersion
	}
	return formatVersion
}

// message is what is signed: a label, the head up to the signature, the payload.
func message(head, payload []byte) []byte {
	m := append([]byte("crmguard backup signed object v1\x00"), head[:magicSize+20]...)
	return append(m, payload...)
}

// open checks a signed object and returns its payload. ErrKey: signed by a key that is not the pinned one, or so it says.
func openSigned(magic string, b []byte, pin ed25519.PublicKey) ([]byte, error) {
	if len(b) < signedHead || string(b[:magicSize]) != magic {
		return nil, ErrTampered
	}
	if v, newest := binary.BigEndian.Uint32(b[magicSize:]), newestVersion(magic); v == 0 || v > newest {
		return nil, versionError(v, newest)
	}
	id := pinID(pin)
	if !bytes.Equal(b[magicSize+4:magicSize+20], id[:]) {
		return nil, ErrKey
	}
	payload := b[signedHead:]
	if !ed25519.Verify(pin, message(b, payload), b[magicSize+20:signedHead]) {
		return nil, ErrTampered
	}
	return payload, nil
}

// versionError tells a later format from a damaged number.
func versionError(v, newest uint32) error {
	if v > newest && v < 1<<16 {
		return ErrVersion
	}
	return ErrTampered
}

// parseManifest checks and reads a manifest that lies at number.
func parseManifest(b []byte, pin ed25519.PublicKey, number uint64) (*manifest, error) {
	payload, err := openSigned(magicManifest, b, pin)
	if err != nil {
		return nil, err
	}
	m := &manifest{digest: sha256.Sum256(b), version: binary.BigEndian.Uint32(b[magicSize:])}
	if err := strictJSON(payload, m); err != nil {
		return nil, err
	}
	if m.Number != number || m.Cipher != cipherName || m.Compression != compressionName ||
		m.Digest != digestName || len(m.Keys) == 0 || len(m.Segments) == 0 ||
		(m.Kind != kindData && m.Kind != kindShards) {
		return nil, errMalformed
	}
	for _, o := range m.objects() {
		if o.Size <= 0 || o.Size > maxSegment {
			return nil, errMalformed
		}
	}
	indexed := m.version > 1 && m.Kind == kindData
	if (len(m.Index) > 0) != indexed || (len(m.IndexKey) > 0) != indexed || (m.Parent > 0) != (m.Depth > 0) || m.Unread && m.Number == 1 ||
		m.Parent >= m.Number || m.Parent == 0 && m.ParentDigest != (sum32{}) || m.Repeats >= m.Number || m.Parent > 0 && m.Repeats > 0 ||
		m.version == 1 && (!m.Keep.IsZero() || m.Unread || m.partial()) || m.partial() && !indexed || !indexed && (m.Parent > 0 || m.Repeats > 0 || len(m.Anomalies) > 0) {
		return nil, errMalformed
	}
	for i := range m.Tables {
		t := &m.Tables[i]
		if m.version == 1 {
			if t.Held != 0 || t.Whole || t.Packed != 0 || t.Added != 0 || t.Changed != 0 || t.Removed != 0 || t.State != 0 || t.Seq != 0 {
				return nil, errMalformed
			}
			t.Whole, t.Held = true, t.Rows
		}
		if t.Rows < 0 || t.Held < 0 || t.Bytes < 0 || t.Held > t.Rows || t.Whole && t.Held != t.Rows || m.Parent == 0 && !t.Whole {
			return nil, errMalformed
		}
	}
	return m, nil
}

// strictJSON reads exactly one value, no unknown fields. A later format may have them, but says so in its version.
func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errMalformed
	}
	if _, err := d.Token(); err != io.EOF {
		return errMalformed
	}
	return nil
}
