# METADATA
# title: Facts
# description: >-
#   What the policy wants to know of the subject and the circumstances, reduced to named facts. Only this
#   package reads roles, level, zone, address and the like; the controls read facts, the record, and from
#   the subject its id, tenant, team and lists of accesses. So a plan of a control serves everybody who has
#   the same facts, and neither the time nor an address makes a new one. A fact that is a rule without a
#   value is a yes or no and stays open in plans; one with a value is a part of a plan's key.
# schemas:
#   - input: schema.input
package crm.facts

# METADATA
# scope: document
# title: Session roles
# description: >-
#   The roles that count. input.subject.roles are those that the subject has activated in this session, which
#   may be fewer than were assigned. Of these count the ones that are certified where settings demand it.
session_roles contains role if {
	demanded := data.settings.certified_roles
	is_array(demanded)
	some role in input.subject.roles
	not role in demanded
}

session_roles contains role if {
	now := input.environment.time
	is_number(now)
	some grant in input.subject.grants
	is_number(grant.until)
	grant.until > now
	role := grant.role
	role in input.subject.roles
}

# METADATA
# title: Roles
# description: The session's roles and all that they inherit, so far as they are known.
roles := graph.reachable(data.settings.inherits, session_roles)

# METADATA
# title: Exclusive roles
# description: >-
#   The groups of roles of which nobody may have more than one, so far as the subject has more. A role counts
#   here whether certified or not, with all that it inherits.
exclusive contains held if {
	had := graph.reachable(data.settings.inherits, {role | some role in input.subject.roles})
	some group in data.settings.exclusive_roles
	held := had & {role | some role in group}
	count(held) > 1
}

# METADATA
# title: Level
# description: >-
#   The level at which the session runs: at most what the person is cleared for, and a session of level 0 is
#   the usual one.
level := input.subject.level if {
	is_number(input.subject.level)
	input.subject.level >= 0
}

# METADATA
# title: Compartments
# description: The need-to-know groups that the session is cleared for.
compartments contains compartment if {
	some compartment in input.subject.compartments
	is_string(compartment)
}

# METADATA
# title: Region
# description: Where the subject works; nothing when that is not known.
region := input.subject.region if {
	is_string(input.subject.region)
	input.subject.region != ""
}

# METADATA
# title: Purpose
# description: Why the data is processed, as stated; "" when it is not.
purpose := input.environment.purpose if is_string(input.environment.purpose)

# METADATA
# title: In hours
# description: >-
#   It is a working day and hour in the subject's own time zone. Hours that go over midnight are none. Nothing
#   is asked of the zone while the settings demand hours of nobody; a zone
#   of the name "" would be UTC, and "Local" the server's own.
in_hours if {
	hours := data.settings.context.hours
	count(array.concat(hours.actions, array.concat(hours.types, hours.roles))) > 0
	now := input.environment.time
	is_number(now)
	zone := input.subject.zone
	is_string(zone)
	not zone in {"", "Local"}
	time.weekday([now, zone]) in hours.days
	clock := time.format([now, zone, "15:04"])
	hours.from <= clock
	clock < hours.to
}

# METADATA
# title: Trusted network
# description: The client's address lies in a network that the settings trust.
trusted_network if {
	some network in data.settings.context.network.trusted
	net.cidr_contains(network, input.environment.address)
}

# METADATA
# title: Managed device
# description: The device is known to be managed.
managed_device if input.subject.device == "managed"
