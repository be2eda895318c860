# METADATA
# title: Decision
# description: >-
#   Composes the controls. A request is permitted when every required control is met; each is positive and
#   named, so that an attribute that is missing leaves its control unmet, and unmet denies. Grounds are the
#   ways in which access can be given; one of them is enough for the control access.granted.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.15
package crm.authz

import data.crm.active
import data.crm.amount
import data.crm.consent
import data.crm.context
import data.crm.delegation
import data.crm.emergency
import data.crm.fields
import data.crm.frozen
import data.crm.hold
import data.crm.mac
import data.crm.obligations
import data.crm.purpose
import data.crm.rbac
import data.crm.reserved
import data.crm.share
import data.crm.sod
import data.crm.tenant

# METADATA
# title: Required
# description: The controls that bound every access, whatever its ground.
required := {
	"access.granted",
	"active.subject",
	"amount.limit",
	"consent.given",
	"context.device",
	"context.hours",
	"context.network",
	"context.region",
	"frozen.state",
	"hold.free",
	"mac.read",
	"mac.write",
	"purpose.allowed",
	"role.reserved",
	"sod.dynamic",
	"sod.static",
	"tenant.same",
}

# METADATA
# scope: document
# title: Grounds
# description: Why access is given. The person is told which.
grounds contains "rbac.all" if rbac.reaches_all

grounds contains "rbac.team" if rbac.reaches_team

grounds contains "rbac.own" if rbac.reaches_own

grounds contains "rbac.pool" if rbac.reaches_pool

grounds contains "share" if share.given

grounds contains "delegation" if delegation.given

grounds contains "emergency" if emergency.open

# METADATA
# scope: document
# title: Met
# description: The controls that are met.
met contains "access.granted" if some _ in grounds

met contains "active.subject" if active.subject

met contains "amount.limit" if amount.limit

met contains "consent.given" if consent.given

met contains "context.device" if context.device

met contains "context.hours" if context.hours

met contains "context.network" if context.network

met contains "context.region" if context.region

met contains "frozen.state" if frozen.mutable

met contains "hold.free" if hold.free

met contains "mac.read" if mac.read

met contains "mac.write" if mac.write

met contains "purpose.allowed" if purpose.allowed

met contains "role.reserved" if reserved.kept

met contains "sod.dynamic" if sod.dynamic

met contains "sod.static" if sod.static

met contains "tenant.same" if tenant.same

# METADATA
# title: Permitted
# description: No required control is missing.
permitted if required - met == set()

# METADATA
# title: Decision
# description: >-
#   The whole answer, as the plans give it too. Fields and obligations count only when it is permitted.
# entrypoint: true
decision := {
	"required": required,
	"met": met,
	"grounds": grounds,
	"by_class": fields.by_class,
	"by_name": fields.by_name,
	"obligations": obligations.needed,
}
