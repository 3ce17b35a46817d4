//! A value of each IP family that the node has.

/// A value of IPv4, and one of IPv6 if the node has IPv6.
///
/// The types differ if they are generic over the address: `Dual<Table<Ipv4Addr>, Table<Ipv6Addr>>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dual<T, U = T> {
    /// The value of IPv4.
    pub ipv4: T,
    /// The value of IPv6; `None` if the node has no IPv6.
    pub ipv6: Option<U>,
}

impl<T, U> Dual<T, U> {
    /// Creates the values of a node that has both families.
    #[must_use]
    pub fn both(ipv4: T, ipv6: U) -> Self {
        let ipv6 = Some(ipv6);
        Self { ipv4, ipv6 }
    }

    /// Returns references to the values.
    #[must_use]
    pub fn as_ref(&self) -> Dual<&T, &U> {
        Dual {
            ipv4: &self.ipv4,
            ipv6: self.ipv6.as_ref(),
        }
    }

    /// Returns mutable references to the values.
    #[must_use]
    pub fn as_mut(&mut self) -> Dual<&mut T, &mut U> {
        Dual {
            ipv4: &mut self.ipv4,
            ipv6: self.ipv6.as_mut(),
        }
    }

    /// Returns pairs of the values of each family that both sides have.
    #[must_use]
    pub fn zip<V, W>(self, other: Dual<V, W>) -> Dual<(T, V), (U, W)> {
        Dual {
            ipv4: (self.ipv4, other.ipv4),
            ipv6: self.ipv6.zip(other.ipv6),
        }
    }
}

impl<T, U, V, W> Dual<(T, V), (U, W)> {
    /// Splits the pairs.
    #[must_use]
    pub fn unzip(self) -> (Dual<T, U>, Dual<V, W>) {
        let (first4, second4) = self.ipv4;
        let (first6, second6) = self.ipv6.unzip();
        let dual = |ipv4, ipv6| Dual { ipv4, ipv6 };
        (
            dual(first4, first6),
            Dual {
                ipv4: second4,
                ipv6: second6,
            },
        )
    }
}

impl Dual<bool> {
    /// Whether the value of any family is true.
    #[must_use]
    pub fn any(self) -> bool {
        self.ipv4 || self.ipv6 == Some(true)
    }

    /// Whether the value of each family is true.
    #[must_use]
    pub fn all(self) -> bool {
        self.ipv4 && self.ipv6 != Some(false)
    }
}

impl<T> IntoIterator for Dual<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::iter::Once<T>, std::option::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.ipv4).chain(self.ipv6)
    }
}

/// Evaluates an expression for the value of each family, and returns a [`Dual`] of the results.
///
/// Unlike a closure, the expression may have a type for each family, borrow mutably, and return
/// from the function with `?`.
#[macro_export]
macro_rules! per_family {
    ($dual:expr, |$value:pat_param| $body:expr) => {{
        let $crate::planner::dual::Dual { ipv4, ipv6 } = $dual;
        $crate::planner::dual::Dual {
            ipv4: match ipv4 {
                $value => $body,
            },
            ipv6: match ipv6 {
                Some($value) => Some($body),
                None => None,
            },
        }
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_evaluated_for_each_family_of_the_node() {
        let double = |dual: Dual<u8, u16>| per_family!(dual, |value| u32::from(value) * 2);
        assert_eq!(double(Dual::both(1, 2)), Dual::both(2, 4));
        let ipv4 = Dual {
            ipv4: 1,
            ipv6: None,
        };
        assert_eq!(
            double(ipv4.clone()),
            Dual {
                ipv4: 2,
                ipv6: None
            }
        );
        assert_eq!(ipv4.as_ref().zip(Dual::both(3, 4)).ipv6, None);
        assert!(Dual::both(false, true).any() && !Dual::both(false, true).all());
        let ipv4_only = |ipv4| Dual { ipv4, ipv6: None };
        assert!(ipv4_only(true).all() && !ipv4_only(false).any());
        let sum: u32 = double(Dual::both(1, 2)).into_iter().sum();
        assert_eq!(sum, 6);
    }
}
