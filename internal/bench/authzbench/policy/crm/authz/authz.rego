# METADATA
# title: Decision
# description: Composes the controls.
# schemas:
#   - input: schema.input
package crm.authz

import data.crm.control
import data.crm.fields
import data.crm.obligations
import data.crm.rbac

required := {"access.granted", "active.subject", "frozen.state", "mac.read", "mfa.done", "tenant.same"}

grounds contains "rbac.all" if rbac.reaches_all

grounds contains "rbac.team" if rbac.reaches_team

grounds contains "rbac.own" if rbac.reaches_own

grounds contains "share" if rbac.shared

met contains "access.granted" if some _ in grounds

met contains "active.subject" if control.active

met contains "frozen.state" if control.mutable

met contains "mac.read" if control.cleared

met contains "mfa.done" if control.stepped_up

met contains "tenant.same" if control.same_tenant

permitted if required - met == set()

decision := {
	"required": required,
	"met": met,
	"grounds": grounds,
	"by_class": fields.by_class,
	"by_name": fields.by_name,
	"obligations": obligations.needed,
}
