package crm

import "time"

// The names under which the types of this package are stored, decided on and logged.
const (
	TypeCustomer = "customer"
	TypeContact  = "contact"
	TypeLead     = "lead"
	TypeFollowUp = "follow_up"
	TypeQuote    = "quote"
	TypeContract = "contract"
	TypeTicket   = "ticket"
	TypeEmployee = "employee"

	TypeEmergency     = "emergency"
	TypeDelegation    = "delegation"
	TypeSharing       = "sharing"
	TypeCertification = "certification"
	TypeCampaign      = "campaign"
	TypeExport        = "export"

	TypeSeries = "series"
	TypeMerge  = "merge"
)

// The names of the types in the packages beside this one.
const (
	TypeOpportunity = "opportunity" // crm/sales, as the next three
	TypePipeline    = "pipeline"
	TypeProduct     = "product"
	TypePriceList   = "price_list"
	TypeInstalment  = "instalment" // crm/finance, as the next four
	TypeReceipt     = "receipt"
	TypeInvoice     = "invoice"
	TypeExpense     = "expense"
	TypePeriod      = "period"
	TypeAgreement   = "agreement" // crm/sla
	TypePool        = "pool"      // crm/pool, as the next
	TypeOwnership   = "ownership"
	TypeProject     = "project" // crm/project, as the next
	TypeTask        = "task"
	TypeWarehouse   = "warehouse" // crm/stock, as the next two
	TypeMovement    = "movement"
	TypeOrder       = "order"
	TypeForm        = "form" // crm/form, as the next
	TypeEntry       = "entry"
	TypeFlow        = "flow" // crm/flow, as the next
	TypeInstance    = "instance"
	TypeEndpoint    = "endpoint" // crm/outbox, as the next two
	TypeDelivery    = "delivery"
	TypeCursor      = "cursor"
	TypeImport      = "import" // crm/transfer, as the next
	TypeKept        = "kept"
	TypeSuppression = "suppression" // crm/privacy, as the next two
	TypeHold        = "hold"
	TypeErasure     = "erasure"
)

// Meta is what every record has; domain types embed it.
//
// Version, Deleted and the two times are set by whoever stores the record; a caller changes Version
// only by reading the record again.
type Meta[T any] struct {
	ID        ID[T]        `protect:"-" json:"id"`
	Person    ID[Person]   `protect:"-" json:"person"`                    // whose data the personal fields are, unless a field names another
	Version   int64        `protect:"-" json:"version"`                   // 0: not stored yet
	Deleted   bool         `protect:"-" json:"deleted"`                   // in the recycle bin
	Owner     ID[Employee] `protect:"internal,indexed" json:"owner"`      // who answers for the record
	Team      string       `protect:"internal,indexed" json:"team"`       // path such as "/east/1/": a team's subtree shares the prefix
	CreatedAt time.Time    `protect:"internal,indexed" json:"created_at"` // UTC, microseconds
	UpdatedAt time.Time    `protect:"internal,indexed" json:"updated_at"` // UTC, microseconds
}

// Header is a Meta without its type.
type Header struct {
	ID        UUID
	Person    UUID
	Version   int64
	Deleted   bool
	Owner     UUID
	Team      string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Header returns a copy of m.
func (m *Meta[T]) Header() Header {
	return Header{
		ID: m.ID.UUID(), Person: m.Person.UUID(), Version: m.Version, Deleted: m.Deleted,
		Owner: m.Owner.UUID(), Team: m.Team, CreatedAt: m.CreatedAt, UpdatedAt: m.UpdatedAt,
	}
}

// SetHeader sets all of m.
func (m *Meta[T]) SetHeader(h Header) {
	*m = Meta[T]{
		ID: ID[T](h.ID), Person: ID[Person](h.Person), Version: h.Version, Deleted: h.Deleted,
		Owner: ID[Employee](h.Owner), Team: h.Team, CreatedAt: h.CreatedAt, UpdatedAt: h.UpdatedAt,
	}
}
