package encrypt

import (
	"context"
	"errors"
)

var errTODO = errors.New("encrypt: being built")

// Keeper holds the keys of all tenants.
type Keeper struct{}

// NewKeeper makes one.
func NewKeeper(kek KEK, keys KeyStore, opts *Options) (*Keeper, error) { return nil, errTODO }

func (k *Keeper) Token(ctx context.Context, tenant, typ, field, kind, normalizer, term string) (int64, error) {
	return 0, errTODO
}
func (k *Keeper) MAC(ctx context.Context, tenant, label string, data []byte) ([]byte, error) {
	return nil, errTODO
}
func (k *Keeper) VerifyMAC(ctx context.Context, tenant, label string, data, mac []byte) error {
	return errTODO
}
func (k *Keeper) SealFor(ctx context.Context, tenant string, person [16]byte, label string, ad, plaintext []byte) ([]byte, error) {
	return nil, errTODO
}
func (k *Keeper) OpenFor(ctx context.Context, tenant string, person [16]byte, label string, ad, sealed []byte) ([]byte, error) {
	return nil, errTODO
}
func (k *Keeper) SealTenant(ctx context.Context, tenant, label string, ad, plaintext []byte) ([]byte, error) {
	return nil, errTODO
}
func (k *Keeper) OpenTenant(ctx context.Context, tenant, label string, ad, sealed []byte) ([]byte, error) {
	return nil, errTODO
}
func (k *Keeper) Erase(ctx context.Context, tenant string, person [16]byte, classes ...Retention) (Receipt, error) {
	return Receipt{}, errTODO
}
func (k *Keeper) Erasures(ctx context.Context, tenant string) (uint64, error) { return 0, errTODO }
func (k *Keeper) Rotate(ctx context.Context, tenant string, progress func(done, total int)) error {
	return errTODO
}
func (k *Keeper) ExportKeys(ctx context.Context, tenant string, emit func(id [8]byte, record []byte) error) error {
	return errTODO
}
func (k *Keeper) ImportKeys(ctx context.Context, tenant string, records [][]byte) error {
	return errTODO
}

// Codec seals and opens T.
type Codec[T any] struct{}

func NewCodec[T any](opts *CodecOptions) (*Codec[T], error) { return nil, errTODO }

func (c *Codec[T]) Type() string                              { return "" }
func (c *Codec[T]) Fields() []Field                           { return nil }
func (c *Codec[T]) ClearValues(v *T) ([]any, error)           { return nil, errTODO }
func (c *Codec[T]) SetClear(v *T, values []any) error         { return errTODO }
func (c *Codec[T]) Conceal(v *T, field string, s State) error { return errTODO }
func (c *Codec[T]) Seal(ctx context.Context, k *Keeper, rec Record, v *T, prev *Sealed, keep ...string) (Sealed, error) {
	return Sealed{}, errTODO
}
func (c *Codec[T]) SealAll(ctx context.Context, k *Keeper, recs []Record, vs []*T) ([]Sealed, error) {
	return nil, errTODO
}
func (c *Codec[T]) Open(ctx context.Context, k *Keeper, rec Record, fields []SealedField, v *T, names ...string) (States, error) {
	return nil, errTODO
}
func (c *Codec[T]) OpenAll(ctx context.Context, k *Keeper, recs []Record, fields [][]SealedField, vs []*T, names ...string) ([]States, error) {
	return nil, errTODO
}
func (c *Codec[T]) Terms(field, kind, typed string) ([]string, error) { return nil, errTODO }
func (c *Codec[T]) QueryTokens(ctx context.Context, k *Keeper, tenant, field, typed string) ([]int64, error) {
	return nil, errTODO
}

// MemoryKeys is a KeyStore in memory.
type MemoryKeys struct{}
