# METADATA
# title: Decision
# description: >-
#   Composes the controls. Every mandatory control is positive and named: an attribute that is missing
#   makes it undefined, and undefined denies. The engine asks for `permitted` with the record unknown to
#   make a list's filter, and for `decision` to answer one request.
# schemas:
#   - input: schema.input
package crm.authz

# METADATA
# title: Permitted
# description: All mandatory controls hold and a grant covers the record.
# entrypoint: true
permitted if {
	data.crm.tenant.same
	data.crm.active.subject
	data.crm.frozen.mutable
	data.crm.rbac.permit
}

# METADATA
# title: Decision
# description: What the engine reads; allowed is false unless `permitted` holds.
# entrypoint: true
decision := {
	"allowed": allowed,
	"met": met,
	"failed": required - met,
	"fields": fields,
	"obligations": obligations,
}

default allowed := false

allowed if permitted

default fields := {"by_class": {}, "by_name": {}}

fields := {"by_class": data.crm.fields.by_class, "by_name": data.crm.fields.by_name} if permitted

default obligations := set()

obligations := data.crm.obligations.needed if permitted

required := {"tenant.same", "active.subject", "frozen.state", "rbac.grant"}

met contains "tenant.same" if data.crm.tenant.same

met contains "active.subject" if data.crm.active.subject

met contains "frozen.state" if data.crm.frozen.mutable

met contains "rbac.grant" if data.crm.rbac.permit

met contains ground if some ground in data.crm.rbac.grounds
