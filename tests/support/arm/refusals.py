"""All that this ARM refuses, each with the page of Microsoft's that has the rule.

A test hits every one of them by a raw request (tests/arm): one that no request can meet is not here.
"""

from __future__ import annotations

from support.arm.errors import Refusal

LEARN = "https://learn.microsoft.com/"
_SEEN = "https://github.com/"
_ARM = LEARN + "azure/azure-resource-manager/"
_ERRORS = _ARM + "troubleshooting/common-deployment-errors"
_REST = LEARN + "rest/api/"

# Who asks, and how.
NO_TOKEN = Refusal("AuthenticationFailed", 401, _REST + "azure/#send-the-request")
BAD_TOKEN = Refusal("InvalidAuthenticationToken", 401, _REST + "azure/#send-the-request")
OLD_TOKEN = Refusal(
    "ExpiredAuthenticationToken", 401, LEARN + "entra/identity-platform/configurable-token-lifetimes"
)
NO_RIGHT = Refusal("AuthorizationFailed", 403, LEARN + "azure/role-based-access-control/troubleshooting")
NO_LINKED_RIGHT = Refusal(
    "LinkedAuthorizationFailed", 403, LEARN + "azure/role-based-access-control/troubleshooting"
)
NO_SUBSCRIPTION = Refusal("SubscriptionNotFound", 404, _ARM + "troubleshooting/error-not-found")
READ_ONLY_SUBSCRIPTION = Refusal(
    "ReadOnlyDisabledSubscription", 409, LEARN + "azure/cost-management-billing/manage/subscription-states"
)
NO_VERSION = Refusal(
    "MissingApiVersionParameter", 400, _ARM + "management/resource-providers-and-types#supported-api-versions"
)
BAD_VERSION = Refusal(
    "NoRegisteredProviderFound", 400, _ARM + "troubleshooting/error-register-resource-provider"
)
BAD_VERSION_OF_ARM = Refusal(
    "InvalidApiVersionParameter",
    400,
    _ARM + "management/resource-providers-and-types#supported-api-versions",
)
UNREGISTERED = Refusal(
    "MissingSubscriptionRegistration", 409, _ARM + "troubleshooting/error-register-resource-provider"
)
NO_NAMESPACE = Refusal(
    "InvalidResourceNamespace", 404, _ARM + "troubleshooting/error-register-resource-provider"
)
NO_TYPE = Refusal("InvalidResourceType", 404, _ARM + "management/resource-providers-and-types")
NO_METHOD = Refusal("HttpMethodNotSupported", 405, _REST + "azure/#components-of-a-rest-api-request")

# What is sent.
BAD_JSON = Refusal("InvalidRequestContent", 400, _ERRORS)
BAD_BODY_OF_NETWORK = Refusal("InvalidRequestFormat", 400, _ERRORS)
BAD_BODY_OF_COMPUTE = Refusal("BadRequest", 400, _ERRORS)
NO_LOCATION = Refusal("LocationRequired", 400, _REST + "resources/resources/create-or-update-by-id")
BAD_LOCATION = Refusal(
    "LocationNotAvailableForResourceType", 400, _ARM + "management/resource-providers-and-types"
)
BAD_LOCATION_OF_GROUP = Refusal(
    "LocationNotAvailableForResourceGroup", 400, _ARM + "management/manage-resource-groups-portal"
)
MOVED = Refusal("InvalidResourceLocation", 409, _ERRORS)
MOVED_GROUP = Refusal("InvalidResourceGroupLocation", 409, _ARM + "management/manage-resource-groups-portal")
BAD_NAME = Refusal("InvalidResourceName", 400, _ARM + "management/resource-name-rules")
BAD_GROUP_NAME = Refusal(
    "InvalidResourceGroup",
    400,
    _ARM + "management/resource-name-rules",
    _SEEN + "microsoft/microsoft-foundry-for-vscode/issues/53",
)
NAME_MISMATCH = Refusal("InvalidRequestContent", 400, _REST + "resources/resources/create-or-update-by-id")
TOO_MANY_TAGS = Refusal("InvalidTagCount", 400, _ARM + "management/tag-resources#limitations")
LONG_TAG_NAME = Refusal("InvalidTagNameLength", 400, _ARM + "management/tag-resources#limitations")
LONG_TAG_VALUE = Refusal("InvalidTagValueLength", 400, _ARM + "management/tag-resources#limitations")
BAD_TAG_NAME = Refusal("InvalidTagNameCharacters", 400, _ARM + "management/tag-resources#limitations")
SAME_TAGS = Refusal("DuplicateTag", 400, _ARM + "management/tag-resources#limitations")
BAD_FILTER = Refusal("InvalidFilterInQueryString", 400, _REST + "resources/resources/list#uri-parameters")
CHANGED = Refusal("PreconditionFailed", 412, _REST + "compute/virtual-machines/create-or-update")

# What is there, and what is not.
NO_GROUP = Refusal("ResourceGroupNotFound", 404, _ARM + "troubleshooting/error-not-found")
NO_RESOURCE = Refusal("ResourceNotFound", 404, _ARM + "troubleshooting/error-not-found")
NO_CHILD = Refusal("NotFound", 404, _ARM + "troubleshooting/error-not-found")
NO_PARENT = Refusal("ParentResourceNotFound", 404, _ARM + "troubleshooting/error-parent-resource")
GROUP_GOES = Refusal("ResourceGroupBeingDeleted", 409, _ARM + "management/delete-resource-group")
GROUP_STAYS = Refusal(
    "ResourceGroupDeletionBlocked",
    409,
    _ARM + "management/delete-resource-group",
    _SEEN + "MicrosoftDocs/azure-docs/issues/52282",
)
BUSY = Refusal("AnotherOperationInProgress", 429, _ERRORS)
NO_OPERATION = Refusal("NotFound", 404, _ARM + "management/async-operations")
NO_REFERENCE = Refusal(
    "InvalidResourceReference",
    400,
    _ARM + "troubleshooting/error-not-found",
    _SEEN + "MicrosoftLearning/AZ-103-MicrosoftAzureAdministrator/issues/91",
)
UNREADY_REFERENCE = Refusal(
    "RetryableError",
    429,
    LEARN + "azure/azure-resource-manager/management/request-limits-and-throttling#network-throttling",
    _SEEN + "hashicorp/terraform/issues/7986",
)

# Microsoft.Network.
_NSG = LEARN + "azure/virtual-network/network-security-groups-overview#security-rules"
_VNET = LEARN + "azure/virtual-network/virtual-networks-faq"
_NIC = LEARN + "azure/virtual-network/virtual-network-network-interface"
_IP = LEARN + "azure/virtual-network/ip-services/"
BAD_CIDR = Refusal("InvalidCIDRNotation", 400, _VNET)
BAD_PREFIX = Refusal("InvalidAddressPrefixFormat", 400, _VNET)
NO_PREFIX = Refusal(
    "MissingRequiredParameter", 400, _REST + "virtualnetwork/virtual-networks/create-or-update"
)
OVERLAPPING_SPACES = Refusal("AddressPrefixesOverlap", 400, _VNET)
SUBNET_OUTSIDE = Refusal(
    "NetcfgSubnetRangeOutsideVnet", 400, _VNET, _SEEN + "MicrosoftDocs/azure-docs/pull/123869"
)
SUBNETS_OVERLAP = Refusal(
    "NetcfgSubnetRangesOverlap", 400, _VNET, _SEEN + "MicrosoftDocs/azure-docs/pull/123869"
)
SUBNET_SMALL = Refusal("NetcfgInvalidIPAddressPrefix", 400, _VNET)
SUBNET_IN_USE = Refusal(
    "InUseSubnetCannotBeDeleted",
    400,
    LEARN + "azure/virtual-network/virtual-network-manage-subnet",
    _SEEN + "kubernetes-sigs/cluster-api-provider-azure/issues/172",
)
SUBNET_PREFIX_IN_USE = Refusal(
    "InUsePrefixCannotBeDeleted", 400, LEARN + "azure/virtual-network/virtual-network-manage-subnet"
)
SUBNET_FULL = Refusal("SubnetIsFull", 400, _VNET)
SAME_NAMES = Refusal("DuplicateResourceName", 400, _ARM + "management/resource-name-rules")
RULE_PRIORITY = Refusal("SecurityRuleInvalidPriority", 400, _NSG)
RULES_CONFLICT = Refusal("SecurityRuleConflict", 400, _NSG)
RULE_PORTS = Refusal("SecurityRuleInvalidPortRange", 400, _NSG)
RULE_ADDRESS = Refusal(
    "SecurityRuleInvalidAddressPrefix", 400, _NSG, _SEEN + "hashicorp/terraform-provider-azurerm/issues/16761"
)
RULE_PARAMETER = Refusal("SecurityRuleParameterMissing", 400, _NSG)
NSG_IN_USE = Refusal(
    "InUseNetworkSecurityGroupCannotBeDeleted",
    400,
    LEARN + "azure/virtual-network/manage-network-security-group#delete-a-network-security-group",
    _SEEN + "pulumi/pulumi-azure-native/issues/3051",
)
BASIC_IP = Refusal(
    "IPv4BasicSkuPublicIpCountLimitReached",
    400,
    _IP + "public-ip-basic-upgrade-guidance",
    _SEEN + "skypilot-org/skypilot/issues/7977",
)
STANDARD_IP_STATIC = Refusal(
    "StandardSkuPublicIPAddressesMustBeStatic",
    400,
    _IP + "public-ip-addresses#sku",
    _SEEN + "pulumi/pulumi-azure-native/issues/1597",
)
IP_IDLE = Refusal("InvalidIdleTimeout", 400, _IP + "virtual-network-public-ip-address")
IP_COUNT = Refusal(
    "PublicIPCountLimitReached", 400, _ARM + "management/azure-subscription-service-limits#publicip-address"
)
IP_IN_USE = Refusal(
    "PublicIPAddressCannotBeDeleted",
    400,
    _IP + "virtual-network-public-ip-address",
    _SEEN + "ernestio/ernest/issues/514",
)
IP_TAKEN = Refusal(
    "PublicIPAddressInUse",
    400,
    _IP + "associate-public-ip-address-vm",
    _SEEN + "gardener/gardener-extension-provider-azure/issues/757",
)
IP_CHANGED = Refusal("PropertyChangeNotAllowed", 400, _IP + "public-ip-addresses")
DNS_LABEL = Refusal(
    "InvalidDomainNameLabel",
    400,
    _IP + "public-ip-addresses#domain-name-label",
    _SEEN + "deis/deis/issues/4854",
)
DNS_RESERVED = Refusal(
    "DomainNameLabelReserved",
    400,
    _ARM + "troubleshooting/error-reserved-resource-name",
    _SEEN + "AzureCosmosDB/OmniVec/pull/161",
)
DNS_TAKEN = Refusal("DnsRecordInUse", 400, _ERRORS, _SEEN + "scarolan/azure-terraform-beginners/issues/20")
NIC_NO_IP = Refusal(
    "NetworkInterfaceMustHaveIpConfiguration", 400, _IP + "virtual-network-network-interface-addresses"
)
NIC_NO_SUBNET = Refusal("InvalidRequestFormat", 400, _NIC)
NIC_IN_USE = Refusal(
    "NicInUse", 400, _NIC + "#delete-a-network-interface", _SEEN + "pulumi/pulumi-azure/issues/441"
)
NIC_RESERVED = Refusal(
    "NicReservedForAnotherVm",
    400,
    LEARN + "troubleshoot/azure/virtual-network/nic-reserved-for-another-vm",
    _SEEN + "cloudfoundry/bosh-azure-cpi-release/issues/366",
)
NIC_ADDRESS_OUTSIDE = Refusal("PrivateIPAddressNotInSubnet", 400, _IP + "private-ip-addresses")
NIC_ADDRESS_RESERVED = Refusal("PrivateIPAddressInReservedRange", 400, _IP + "private-ip-addresses")
NIC_ADDRESS_TAKEN = Refusal(
    "PrivateIPAddressIsAllocated",
    400,
    _IP + "private-ip-addresses",
    _SEEN + "cloudfoundry/bosh-azure-cpi-release/issues/765",
)
NIC_MOVED = Refusal("NicMoveNotAllowed", 400, _NIC + "#change-subnet-assignment")

# Microsoft.Compute.
_VM = LEARN + "azure/virtual-machines/"
_VM_REST = _REST + "compute/virtual-machines/create-or-update"
BAD_SIZE = Refusal("InvalidParameter", 400, _VM + "sizes/overview")
NO_SIZE_HERE = Refusal("SkuNotAvailable", 409, _ARM + "troubleshooting/error-sku-not-available")
QUOTA = Refusal("OperationNotAllowed", 409, _ARM + "troubleshooting/error-resource-quota")
NO_IMAGE = Refusal("PlatformImageNotFound", 404, _VM + "linux/cli-ps-findimage")
BAD_ADMIN = Refusal("InvalidParameter", 400, _VM_REST + "#osprofile")
BAD_PASSWORD = Refusal("InvalidParameter", 400, _VM_REST + "#osprofile")
BAD_HOST_NAME = Refusal("InvalidParameter", 400, _ARM + "management/resource-name-rules#microsoftcompute")
BAD_KEY = Refusal(
    "InvalidParameter",
    400,
    _VM + "linux/create-ssh-keys-detailed#supported-ssh-key-formats",
    _SEEN + "Azure/azure-cli/issues/22725",
)
BAD_KEY_PATH = Refusal("InvalidParameter", 400, _VM_REST + "#sshpublickey")
NO_WAY_IN = Refusal("InvalidParameter", 400, _VM_REST + "#linuxconfiguration")
BAD_CUSTOM_DATA = Refusal("InvalidParameter", 400, _VM + "custom-data")
MISSING_PARAMETER = Refusal("InvalidParameter", 400, _VM_REST)
FIXED_PROPERTY = Refusal(
    "PropertyChangeNotAllowed", 409, _VM + "custom-data", _SEEN + "Azure/azure-sdk-for-java/issues/1912"
)
NO_TRUSTED_LAUNCH = Refusal("BadRequest", 400, _VM + "trusted-launch")
WRONG_GENERATION = Refusal("BadRequest", 400, _VM + "generation-2")
WRONG_ARCHITECTURE = Refusal("BadRequest", 400, _VM + "sizes/overview")
SMALL_ROOT = Refusal("OperationNotAllowed", 409, _VM + "linux/expand-disks")
TOO_MANY_DISKS = Refusal("OperationNotAllowed", 409, _VM + "managed-disks-overview#data-disk")
SAME_LUN = Refusal("InvalidParameter", 400, _VM_REST + "#datadisk")
DISK_TAKEN = Refusal("ConflictingUserInput", 409, _VM + "managed-disks-overview#disk-roles")
DISK_EXISTS = Refusal(
    "ConflictingUserInput",
    409,
    _VM_REST + "#diskcreateoptiontypes",
    _SEEN + "hashicorp/terraform-provider-azurerm/issues/15513",
)
DISK_IN_USE = Refusal(
    "OperationNotAllowed", 409, _VM + "linux/detach-disk", _SEEN + "ansible/ansible/pull/54644"
)
DISK_SHRUNK = Refusal("OperationNotAllowed", 409, _VM + "linux/expand-disks")
DISK_NO_SIZE = Refusal("InvalidParameter", 400, _REST + "compute/disks/create-or-update#creationdata")
NIC_TAKEN = Refusal("NicInUse", 400, _NIC + "-vm", _SEEN + "hashicorp/terraform/issues/10044")
NO_BOOT_DIAGNOSTICS = Refusal("Conflict", 409, _VM + "boot-diagnostics")
